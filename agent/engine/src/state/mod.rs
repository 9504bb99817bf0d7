//! What the engine knows: plain tables, each of which keeps its own order.

pub(crate) mod block;
pub(crate) mod launch;
pub(crate) mod ledger;
pub(crate) mod map;
pub(crate) mod pace;
pub(crate) mod random;
pub(crate) mod settled;
pub(crate) mod task;
pub(crate) mod timers;
