//! The few things that outlive the process: keys of the link, the epoch, the user endpoints that run.
//!
//! On a laptop this is the folder `state` in the endpoint's folder, with files that only their owner reads. Every
//! write is whole or not at all.

mod files;
mod store;

pub use store::{LinkKeys, SavedUserEndpoint, StateError, StateStore};
