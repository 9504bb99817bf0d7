//! Calls to the web service: version, register, status, lock, delete.
//!
//! It knows paths, bodies and statuses, and nothing of what is done with them.

mod address;
mod client;
mod registration;

pub use address::{Addresses, BadAddress, addresses};
pub use client::{Service, ServiceError};
pub(crate) use registration::replace_port;
pub use registration::{Host, Registered, Registration, RegistrationReply};
