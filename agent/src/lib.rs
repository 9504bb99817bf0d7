//! The Waypost endpoint agent: consumes a Globus Compute endpoint's tasks, runs them in blocks of workers, and sends
//! their results back.

pub mod config;
pub mod runtime;
pub mod telemetry;
