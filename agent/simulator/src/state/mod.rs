//! What there is in a world: data, and what can be said of it alone.

mod agent;
mod broker;
mod cluster;
mod machine;

pub(crate) use agent::Agent;
pub(crate) use broker::{Broker, Channel, Consumer, Message, Unacknowledged};
pub(crate) use cluster::Cluster;
pub(crate) use machine::{Held, Machine, Running};
