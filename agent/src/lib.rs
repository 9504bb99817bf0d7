//! The endpoint: takes tasks from a Globus Compute service and has them run by workers.
//!
//! One process hosts one endpoint and all of its user endpoints. Each module is one room with one job, and a room
//! only uses rooms above it in this table; the rooms whose names begin with `endpoint_` are crates of their own:
//!
//! | room | its one job |
//! |---|---|
//! | [`endpoint_back_off`] | waiting between attempts |
//! | [`endpoint_config`] | the endpoint's directory, `config.yaml`, templates and schema, into plain typed values |
//! | [`endpoint_telemetry`] | metrics, logs, probes, the socket that `status` asks |
//! | [`endpoint_cluster_client`] | a client of the Kubernetes API whose requests are counted |
//! | [`endpoint_provider`] | blocks, behind one trait |
//! | [`transport`] | HTTP calls, tried again where that is of use |
//! | [`auth`] | a valid bearer token |
//! | [`service`] | calls to the web service: register, status, lock, delete |
//! | [`state`] | the few things that outlive the process |
//! | [`broker`], [`journal`], [`hub`], [`runtime`] | the way of a task: in from the broker, to a worker, and its result out |
//! | [`manager`] | which user endpoints run, from which command and template |
//! | [`cli`] | the commands |
//!
//! It must never look into a task: payloads are opaque, and only workers unpack them.

pub mod auth;
pub mod broker;
pub mod cli;
pub mod hub;
pub mod journal;
pub mod manager;
pub mod runtime;
pub mod service;
pub mod state;
pub mod transport;
