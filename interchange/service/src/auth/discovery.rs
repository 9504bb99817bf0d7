//! What OpenID Connect clients learn of this service.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::HeaderMap;
use serde_json::{Value, json};

use super::address::{at, base};
use super::{AUTH_SERVER, COMPUTE_SCOPE};
use crate::app::App;
use crate::error::{ApiError, ErrorCode};

/// `GET /.well-known/openid-configuration`.
pub(super) async fn configuration(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let base = base(&app.settings, &headers, &uri).ok_or_else(|| {
        ApiError::new(
            ErrorCode::RequestMalformed,
            "the call does not say which address it is made to",
        )
    })?;
    let token_auth = ["client_secret_basic", "client_secret_post", "none"];
    Ok(Json(json!({
        "issuer": base.as_str().trim_end_matches('/'),
        "authorization_endpoint": at(&base, "/v2/oauth2/authorize"),
        "token_endpoint": at(&base, "/v2/oauth2/token"),
        "revocation_endpoint": at(&base, "/v2/oauth2/token/revoke"),
        "introspection_endpoint": at(&base, "/v2/oauth2/token/introspect"),
        "userinfo_endpoint": at(&base, "/v2/oauth2/userinfo"),
        "jwks_uri": at(&base, "/jwk.json"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": token_auth,
        "revocation_endpoint_auth_methods_supported": token_auth,
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": [
            "openid",
            "profile",
            "email",
            "offline_access",
            format!("urn:globus:auth:scope:{AUTH_SERVER}:manage_projects"),
            COMPUTE_SCOPE,
        ],
        "claims_supported": [
            "aud", "at_hash", "auth_time", "exp", "iat", "iss", "name", "nonce", "preferred_username", "sub",
        ],
    })))
}

/// `GET /jwk.json`.
pub(super) async fn key_set(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.signer.key_set(&app.store).await?))
}
