//! A valid bearer token, from client credentials.
//!
//! Tokens are kept in memory and asked for again shortly before they expire; [`Tokens::invalidate`] makes the next call
//! fetch a fresh one. Nothing here calls the compute service.

mod credentials;
mod tokens;

pub use credentials::{ClientCredentials, CredentialsError, Login};
pub use tokens::{AuthError, Identities, Scope, Tokens};
