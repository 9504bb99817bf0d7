//! What those in a world do when something happens to them.

mod agent;
mod broker;
mod executor;
mod platform;
mod worker;
