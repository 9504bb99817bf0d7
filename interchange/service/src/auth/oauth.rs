use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AUTH_SERVER, AuthIdentity, COMPUTE_SCOPE, COMPUTE_SERVER};
use crate::app::App;
use crate::clock;
use crate::error::ApiError;
use crate::secrets::{digest, new_secret, verify_secret};
use crate::store::{Client, TokenRecord};

/// The calls of Globus Auth that Compute's clients make.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/oauth2/token", post(token))
        .route("/v2/oauth2/token/revoke", post(revoke))
        .route("/v2/oauth2/userinfo", get(user_info))
        .route("/v2/api/identities", get(identities))
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    scope: String,
    client_id: Option<String>,
    client_secret: Option<String>,
}

#[derive(Deserialize)]
struct RevokeRequest {
    token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// An error of RFC 6749, section 5.2.
fn refusal(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({
        "error": error,
        "error_description": description,
        "errors": [{"status": status.as_str(), "code": error.to_uppercase(), "title": description, "detail": description}],
    });
    (status, Json(body)).into_response()
}

fn bad_credentials() -> Response {
    refusal(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "the client's id or secret is not right",
    )
}

/// The client that proves itself by its secret, in the `Authorization` header or in the form.
async fn authenticate(
    app: &App,
    headers: &HeaderMap,
    id: Option<String>,
    secret: Option<String>,
) -> Result<Client, Response> {
    let basic = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            text.split_once(':')
                .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
        });
    let (id, secret) = basic.or_else(|| id.zip(secret)).ok_or_else(bad_credentials)?;
    let id = Uuid::parse_str(&id).map_err(|_| bad_credentials())?;
    let client = app
        .store
        .client(id)
        .await
        .map_err(|error| ApiError::from(error).into_response())?
        .filter(|client| client.revoked_at.is_none())
        .ok_or_else(bad_credentials)?;
    let hash = client.secret_hash.clone();
    // Argon2 is slow on purpose, and so not for a thread that serves other calls.
    let right = tokio::task::spawn_blocking(move || verify_secret(&secret, &hash)).await;
    if right.unwrap_or(false) {
        Ok(client)
    } else {
        Err(bad_credentials())
    }
}

/// The resource server that grants a scope.
fn resource_server(scope: &str) -> Option<&'static str> {
    // A dependent scope may follow in brackets.
    match scope.split('[').next().unwrap_or_default().trim_start_matches('*') {
        COMPUTE_SCOPE => Some(COMPUTE_SERVER),
        "openid" | "profile" | "email" => Some(AUTH_SERVER),
        urn if urn.starts_with("urn:globus:auth:scope:auth.globus.org:") => Some(AUTH_SERVER),
        _ => None,
    }
}

async fn token(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<TokenRequest>) -> Response {
    if form.grant_type != "client_credentials" {
        return refusal(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "only client_credentials is granted here",
        );
    }
    let client = match authenticate(&app, &headers, form.client_id, form.client_secret).await {
        Ok(client) => client,
        Err(response) => return response,
    };
    let mut wanted: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for scope in form.scope.split_whitespace() {
        let Some(server) = resource_server(scope) else {
            return refusal(
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                &format!("the scope {scope} is not granted here"),
            );
        };
        match wanted.iter_mut().find(|(known, _)| *known == server) {
            None => wanted.push((server, vec![scope])),
            Some((_, scopes)) if !scopes.contains(&scope) => scopes.push(scope),
            Some(_) => {}
        }
    }
    if wanted.is_empty() {
        return refusal(StatusCode::BAD_REQUEST, "invalid_scope", "the request names no scope");
    }
    let mut tokens = Vec::with_capacity(wanted.len());
    for (server, scopes) in wanted {
        match give(&app, &client, server, &scopes.join(" ")).await {
            Ok(token) => tokens.push(token),
            Err(error) => return error.into_response(),
        }
    }
    let mut first = tokens.remove(0);
    if let Some(fields) = first.as_object_mut() {
        fields.insert("other_tokens".to_owned(), Value::Array(tokens));
    }
    ([(CACHE_CONTROL, "no-store")], Json(first)).into_response()
}

async fn give(app: &App, client: &Client, server: &str, scope: &str) -> Result<Value, ApiError> {
    let token = new_secret().map_err(|error| {
        tracing::error!(%error, "no token could be made");
        ApiError::unavailable("no token can be made at the moment; try again")
    })?;
    let lifetime = app.settings.token_lifetime;
    let now = clock::now();
    app.store
        .insert_token(&TokenRecord {
            digest: digest(token.expose_secret()),
            client_id: client.id,
            resource_server: server.to_owned(),
            created_at: now,
            expires_at: now.saturating_add(clock::milliseconds(lifetime)),
        })
        .await?;
    Ok(json!({
        "access_token": token.expose_secret(),
        "scope": scope,
        "resource_server": server,
        "expires_in": lifetime.as_secs(),
        "token_type": "Bearer",
    }))
}

async fn revoke(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<RevokeRequest>) -> Response {
    let client = match authenticate(&app, &headers, form.client_id, form.client_secret).await {
        Ok(client) => client,
        Err(response) => return response,
    };
    match app.store.revoke_token(&digest(&form.token), client.id).await {
        Ok(()) => Json(json!({"active": false})).into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn identity(client: &Client) -> Value {
    json!({
        "id": client.id,
        "sub": client.id,
        "username": client.username(),
        "name": client.name,
        "email": null,
        "status": "used",
        "identity_provider": client.id,
        "organization": null,
    })
}

async fn user_info(AuthIdentity(client): AuthIdentity) -> Json<Value> {
    let mut claims = identity(&client);
    if let Some(fields) = claims.as_object_mut() {
        fields.remove("id");
        fields.insert("preferred_username".to_owned(), json!(client.username()));
        fields.insert("identity_set".to_owned(), json!([identity(&client)]));
    }
    Json(claims)
}

#[derive(Deserialize)]
struct IdentitiesQuery {
    #[serde(default)]
    ids: String,
}

/// Only the caller's own identity is told: there is no directory of the others.
async fn identities(AuthIdentity(client): AuthIdentity, Query(query): Query<IdentitiesQuery>) -> Json<Value> {
    let own = client.id.to_string();
    let found: Vec<Value> = query
        .ids
        .split(',')
        .filter(|id| id.trim().eq_ignore_ascii_case(&own))
        .map(|_| identity(&client))
        .collect();
    Json(json!({"identities": found}))
}
