//! The endpoint: takes tasks from a Globus Compute service and has them run by workers.
//!
//! One process hosts one endpoint and all of its user endpoints. Each module is one room with one job, and a room
//! only uses rooms above it in this table:
//!
//! | room | its one job |
//! |---|---|
//! | `back_off` | waiting between attempts |
//! | [`config`] | the endpoint's directory, `config.yaml`, templates and schema, into plain typed values |
//! | [`telemetry`] | metrics, logs, probes, status |
//! | [`auth`] | a valid bearer token |
//! | [`service`] | calls to the web service: register, status, lock, delete |
//! | [`state`] | the few things that outlive the process |
//! | `broker`, `journal`, `hub`, `provider`, [`runtime`] | the way of a task: in from the broker, to a worker, and its result out |
//! | [`manager`] | which user endpoints run, from which command and template |
//! | [`cli`] | the commands |
//!
//! It must never look into a task: payloads are opaque, and only workers unpack them.

pub mod auth;
mod back_off;
pub mod broker;
pub mod cli;
mod cluster_client;
pub mod config;
pub mod hub;
pub mod journal;
pub mod manager;
pub mod provider;
pub mod runtime;
pub mod service;
pub mod state;
pub mod telemetry;
pub mod transport;
