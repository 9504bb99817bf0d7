//! What becomes of tokens that were given out: revocation (RFC 7009) and introspection (RFC 7662).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Json};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::address;
use super::clients::{authenticate, identify, refusal};
use crate::app::App;
use crate::clock;
use crate::error::ApiError;
use crate::secrets::digest;

/// The form of both calls.
#[derive(Deserialize)]
pub(super) struct TokenForm {
    token: SecretString,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
}

/// Ends an access or refresh token of the client that asks. Whether there was such a token is not told.
pub(super) async fn revoke(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<TokenForm>) -> Response {
    let caller = match identify(&app, &headers, form.client_id, form.client_secret).await {
        Ok(caller) => caller,
        Err(response) => return response,
    };
    match app
        .store
        .revoke_token(&digest(form.token.expose_secret()), caller.id())
        .await
    {
        Ok(()) => answer(json!({"active": false})),
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// What an access token is good for, told to any client with a secret of its own: a service that is shown the token.
pub(super) async fn introspect(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
    Form(form): Form<TokenForm>,
) -> Response {
    if let Err(response) = authenticate(&app, &headers, form.client_id, form.client_secret).await {
        return response;
    }
    let Some(base) = address::base(&app.settings, &headers, &uri) else {
        return refusal(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the call does not say which address it is made to",
        );
    };
    let bearer = match app
        .store
        .token_bearer(&digest(form.token.expose_secret()), clock::now())
        .await
    {
        Ok(Some(bearer)) => bearer,
        Ok(None) => return answer(json!({"active": false})),
        Err(error) => return ApiError::from(error).into_response(),
    };
    let seconds = |time: clock::Milliseconds| time.div_euclid(1000);
    answer(json!({
        "active": true,
        "scope": bearer.scope,
        "client_id": bearer.issued_to,
        "sub": bearer.client.id,
        "username": bearer.client.username(),
        "name": bearer.client.name,
        "email": null,
        "aud": [bearer.resource_server],
        "iss": base.as_str().trim_end_matches('/'),
        "iat": seconds(bearer.created_at),
        "nbf": seconds(bearer.created_at),
        "exp": seconds(bearer.expires_at),
        "token_type": "Bearer",
        "identity_set": [bearer.client.id],
    }))
}

fn answer(body: Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
