//! Who calls: client credentials, users who sign in, and the tokens that either is given.
//!
//! The paths and bodies are those of Globus Auth, as its clients use them. A user signs in on a page (`authorize`), whose
//! client redeems the code that comes of it for tokens (`grants`).

mod address;
mod authorize;
mod bearer;
mod clients;
mod discovery;
mod grants;
mod identities;
mod pages;
mod request;
mod scopes;
mod sign_in;
mod standing;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::app::App;

pub(crate) use bearer::{AuthIdentity, Identity};

/// The calls of Globus Auth that Compute's clients make, and the pages that their users see.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/oauth2/authorize", get(authorize::show).post(authorize::submit))
        .route(PASTE_PATH, get(authorize::show_code))
        .route("/v2/web/style.css", get(pages::style))
        .route("/v2/oauth2/token", post(grants::token))
        .route("/v2/oauth2/token/revoke", post(standing::revoke))
        .route("/v2/oauth2/token/introspect", post(standing::introspect))
        .route("/v2/oauth2/userinfo", get(identities::user_info))
        .route("/v2/api/identities", get(identities::identities))
        .route("/.well-known/openid-configuration", get(discovery::configuration))
        .route("/jwk.json", get(discovery::key_set))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
}

/// The scope that allows every call of the Compute service, as its clients ask for it.
pub(crate) const COMPUTE_SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";
/// The resource server of [`COMPUTE_SCOPE`].
pub(crate) const COMPUTE_SERVER: &str = "funcx_service";
/// The resource server for identity calls (`openid` and the like).
pub(crate) const AUTH_SERVER: &str = "auth.globus.org";
/// The page that shows a user the code, to be pasted where the client asks for it.
const PASTE_PATH: &str = "/v2/web/auth-code";
/// Bytes of a form, which anybody may send.
const LARGEST_FORM: usize = 64 << 10;
