//! Who calls: client credentials and access tokens.

mod bearer;
mod oauth;

pub(crate) use bearer::{AuthIdentity, Identity};
pub(crate) use oauth::router;

/// The scope that allows every call of the Compute service, as its clients ask for it.
pub(crate) const COMPUTE_SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";
/// The resource server of [`COMPUTE_SCOPE`].
pub(crate) const COMPUTE_SERVER: &str = "funcx_service";
/// The resource server for identity calls (`openid` and the like).
pub(crate) const AUTH_SERVER: &str = "auth.globus.org";
