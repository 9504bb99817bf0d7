//! What those in a world do when something happens to them.

mod agent;
mod agents;
mod broker;
mod checks;
mod executor;
mod platform;
mod turn;
mod worker;
