use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::{AUTH_SERVER, COMPUTE_SERVER};
use crate::app::App;
use crate::clock;
use crate::error::{ApiError, ErrorCode};
use crate::secrets::digest;
use crate::store::Client;

/// The client or user that calls the Compute API, proved by its access token.
pub(crate) struct Identity(pub(crate) Client);

/// The client or user that calls the identity service, proved by an access token for that.
pub(crate) struct AuthIdentity(pub(crate) Client);

impl FromRequestParts<Arc<App>> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        bearer(parts, app, COMPUTE_SERVER).await.map(Self)
    }
}

impl FromRequestParts<Arc<App>> for AuthIdentity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        bearer(parts, app, AUTH_SERVER).await.map(Self)
    }
}

async fn bearer(parts: &Parts, app: &App, server: &str) -> Result<Client, ApiError> {
    let refusal = || {
        ApiError::new(
            ErrorCode::UserUnauthenticated,
            "an access token is needed, and none that is good was given",
        )
    };
    let token = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(refusal)?;
    let bearer = app
        .store
        .token_bearer(&digest(token), clock::now())
        .await?
        .ok_or_else(refusal)?;
    if bearer.resource_server != server {
        return Err(ApiError::new(
            ErrorCode::ForbiddenScope,
            format!(
                "the access token is for {}, and this call is to {server}",
                bearer.resource_server
            ),
        ));
    }
    Ok(bearer.client)
}
