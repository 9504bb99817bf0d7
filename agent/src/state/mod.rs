//! The few things that outlive the process: the endpoint's id, keys of the link, the epoch, the last registration, the
//! user endpoints that run, refreshed tokens of a login that is only mounted, and whether the endpoint was stopped.
//!
//! On a laptop this is the folder `state` in the endpoint's folder, with files that only their owner reads. In a pod it
//! is one Secret. Every write is whole or not at all.

mod error;
mod files;
mod folder;
mod keys;
mod pack;
mod secret;
mod store;
#[cfg(test)]
mod tests;

pub use error::StateError;
pub use secret::SecretMedium;
pub use store::{Asked, LinkKeys, SavedRegistration, SavedUserEndpoint, StateStore};
