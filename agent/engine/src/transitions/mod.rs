//! What each input does to the state, and what follows from it: each file one concern.

pub(crate) mod blocks;
pub(crate) mod deliveries;
pub(crate) mod dispatch;
pub(crate) mod drain;
pub(crate) mod failures;
pub(crate) mod hello;
pub(crate) mod journal;
pub(crate) mod launch;
pub(crate) mod refresh;
pub(crate) mod restart;
pub(crate) mod results;
pub(crate) mod scale;
pub(crate) mod tasks;
pub(crate) mod window;
