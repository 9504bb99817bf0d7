//! Who calls: client secrets, access tokens, broker passwords.

mod bearer;
mod oauth;
mod secrets;

pub(crate) use bearer::{AuthIdentity, Identity};
pub(crate) use oauth::router;
pub(crate) use secrets::{ServerKey, digest, hash_secret, new_secret, verify_secret};

/// The scope that allows every call of the Compute service, as its clients ask for it.
pub(crate) const COMPUTE_SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";
/// The resource server of [`COMPUTE_SCOPE`].
pub(crate) const COMPUTE_SERVER: &str = "funcx_service";
/// The resource server for identity calls (`openid` and the like).
pub(crate) const AUTH_SERVER: &str = "auth.globus.org";
