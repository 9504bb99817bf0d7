//! `POST /v2/oauth2/token`: what clients and users get tokens for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;
use uuid::Uuid;

use super::clients::{Caller, authenticate, identify, refusal};
use super::scopes::{self, ServerScopes};
use super::{address, identities};
use crate::app::App;
use crate::clock::{self, Milliseconds};
use crate::error::{ApiError, ErrorCode};
use crate::secrets::{digest, new_secret};
use crate::store::{AuthorizationCode, Redeemed, RefreshToken, TokenRecord, User};

/// The form of a request for tokens.
#[derive(Deserialize)]
pub(super) struct TokenRequest {
    grant_type: String,
    #[serde(default)]
    scope: String,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    code: Option<SecretString>,
    code_verifier: Option<SecretString>,
    redirect_uri: Option<String>,
    refresh_token: Option<SecretString>,
}

fn bad_request(error: &str, description: &str) -> Response {
    refusal(StatusCode::BAD_REQUEST, error, description)
}

fn bad_grant(description: &str) -> Response {
    bad_request("invalid_grant", description)
}

/// The answer to a request for tokens.
pub(super) async fn token(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
    Form(form): Form<TokenRequest>,
) -> Response {
    let granted = match form.grant_type.as_str() {
        "client_credentials" => client_credentials(&app, &headers, form).await,
        "authorization_code" => authorization_code(&app, &headers, &uri, form).await,
        "refresh_token" => refresh(&app, &headers, &uri, form).await,
        _ => Err(bad_request(
            "unsupported_grant_type",
            "only client_credentials, authorization_code and refresh_token are granted here",
        )),
    };
    match granted {
        Ok(body) => ([(CACHE_CONTROL, "no-store")], Json(body)).into_response(),
        Err(response) => response,
    }
}

/// A token that is being made: what its client is told, and what is kept of it.
struct Made {
    answer: Value,
    record: TokenRecord,
}

/// Whom a token is made for.
struct Holder {
    /// Whom it speaks for.
    identity: Uuid,
    /// The client that gets it.
    client: Uuid,
    /// A user's sign-in.
    grant: Option<Uuid>,
}

fn secret() -> Result<SecretString, ApiError> {
    new_secret().map_err(|error| {
        tracing::error!(%error, "no token could be made");
        ApiError::unavailable("no token can be made at the moment; try again")
    })
}

fn make(app: &App, holder: &Holder, scopes: &ServerScopes, now: Milliseconds) -> Result<Made, ApiError> {
    let token = secret()?;
    let lifetime = app.settings.token_lifetime;
    Ok(Made {
        answer: json!({
            "access_token": token.expose_secret(),
            "scope": scopes.scope,
            "resource_server": scopes.server,
            "expires_in": lifetime.as_secs(),
            "token_type": "Bearer",
        }),
        record: TokenRecord {
            digest: digest(token.expose_secret()),
            client_id: holder.identity,
            issued_to: holder.client,
            resource_server: scopes.server.to_owned(),
            scope: scopes.scope.clone(),
            grant_id: holder.grant,
            created_at: now,
            expires_at: now.saturating_add(clock::milliseconds(lifetime)),
        },
    })
}

fn add(answer: &mut Value, name: &str, value: Value) {
    if let Some(fields) = answer.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// The first token's answer with the others in it.
fn together(mut answers: Vec<Value>) -> Value {
    let mut first = answers.remove(0);
    add(&mut first, "other_tokens", Value::Array(answers));
    first
}

fn failed(error: impl Into<ApiError>) -> Response {
    error.into().into_response()
}

async fn client_credentials(app: &App, headers: &HeaderMap, form: TokenRequest) -> Result<Value, Response> {
    let client = authenticate(app, headers, form.client_id, form.client_secret).await?;
    let wanted = scopes::by_server(&form.scope).map_err(|error| bad_request("invalid_scope", &error.to_string()))?;
    let holder = Holder {
        identity: client.id,
        client: client.id,
        grant: None,
    };
    let mut answers = Vec::with_capacity(wanted.len());
    for scopes in wanted {
        let made = make(app, &holder, &scopes, clock::now()).map_err(failed)?;
        app.store.insert_token(&made.record).await.map_err(failed)?;
        answers.push(made.answer);
    }
    Ok(together(answers))
}

/// Why a code can't be redeemed by this request. None if it can.
fn fault(code: &AuthorizationCode, caller: &Caller, form: &TokenRequest) -> Option<&'static str> {
    let verifier = form
        .code_verifier
        .as_ref()
        .map_or("", |verifier| verifier.expose_secret());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    if code.client_id != caller.id() {
        Some("the code was given to another client")
    } else if form.redirect_uri.as_ref() != Some(&code.redirect_uri) {
        Some("redirect_uri is not the one that the code was asked for with")
    } else if !bool::from(challenge.as_bytes().ct_eq(code.challenge.as_bytes())) {
        Some("code_verifier does not fit the code_challenge that the code was asked for with")
    } else {
        None
    }
}

async fn authorization_code(
    app: &App,
    headers: &HeaderMap,
    uri: &Uri,
    mut form: TokenRequest,
) -> Result<Value, Response> {
    const NOT_GOOD: &str = "the code is not, or no longer, good: it is used, too old, or none of this service";
    let caller = identify(app, headers, form.client_id.take(), form.client_secret.take()).await?;
    let given = form
        .code
        .as_ref()
        .ok_or_else(|| bad_request("invalid_request", "the request has no code"))?;
    let code_digest = digest(given.expose_secret());
    let code = app
        .store
        .code(&code_digest)
        .await
        .map_err(failed)?
        .ok_or_else(|| bad_grant(NOT_GOOD))?;
    let now = clock::now();
    if let Some(fault) = fault(&code, &caller, &form) {
        // Whoever has it should not have it: it ends, and nobody can try more verifiers.
        app.store
            .redeem_code(&code_digest, now, &[], &[])
            .await
            .map_err(failed)?;
        return Err(bad_grant(fault));
    }
    let user = app
        .store
        .user(code.user_id)
        .await
        .map_err(failed)?
        .ok_or_else(|| bad_grant("the user was removed"))?;
    let holder = Holder {
        identity: user.id,
        client: code.client_id,
        grant: Some(code.grant_id),
    };
    let wanted = scopes::by_server(&code.scope).map_err(|error| bad_request("invalid_scope", &error.to_string()))?;
    let mut made = Vec::with_capacity(wanted.len());
    let mut refresh_tokens = Vec::new();
    for scopes in wanted {
        let mut token = make(app, &holder, &scopes, now).map_err(failed)?;
        if code.offline {
            let refresh_token = secret().map_err(failed)?;
            add(&mut token.answer, "refresh_token", json!(refresh_token.expose_secret()));
            refresh_tokens.push(RefreshToken {
                digest: digest(refresh_token.expose_secret()),
                grant_id: code.grant_id,
                user_id: user.id,
                client_id: code.client_id,
                resource_server: scopes.server.to_owned(),
                scope: scopes.scope,
                created_at: now,
                used_at: now,
            });
        }
        made.push(token);
    }
    let (mut answers, records): (Vec<Value>, Vec<TokenRecord>) =
        made.into_iter().map(|made| (made.answer, made.record)).unzip();
    if scopes::names(&code.scope, "openid")
        && let Some(first) = answers.first_mut()
    {
        let asked = Asked {
            client: code.client_id,
            nonce: code.nonce.as_deref(),
            signed_in_at: code.signed_in_at,
        };
        add_id_token(app, headers, uri, first, &user, &asked)
            .await
            .map_err(failed)?;
    }
    match app
        .store
        .redeem_code(&code_digest, now, &records, &refresh_tokens)
        .await
        .map_err(failed)?
    {
        Redeemed::Now => Ok(together(answers)),
        Redeemed::Before => Err(bad_grant(NOT_GOOD)),
    }
}

/// What an id_token says of the sign-in.
struct Asked<'code> {
    client: Uuid,
    nonce: Option<&'code str>,
    signed_in_at: Milliseconds,
}

/// Puts an id_token beside an access token.
async fn add_id_token(
    app: &App,
    headers: &HeaderMap,
    uri: &Uri,
    answer: &mut Value,
    user: &User,
    asked: &Asked<'_>,
) -> Result<(), ApiError> {
    let base = address::base(&app.settings, headers, uri).ok_or_else(|| {
        ApiError::new(
            ErrorCode::RequestMalformed,
            "the call does not say which address it is made to",
        )
    })?;
    let access_token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let claims = id_token_claims(
        &base,
        access_token,
        user,
        asked,
        clock::now(),
        app.settings.token_lifetime.as_secs(),
    );
    let token = app.signer.sign(&app.store, &claims).await?;
    add(answer, "id_token", json!(token));
    Ok(())
}

fn id_token_claims(
    base: &Url,
    access_token: &str,
    user: &User,
    asked: &Asked<'_>,
    now: Milliseconds,
    lifetime: u64,
) -> Value {
    let issued = now.div_euclid(1000);
    let hash = Sha256::digest(access_token.as_bytes());
    let half = hash.get(..hash.len() / 2).unwrap_or_default();
    let mut claims = identities::of_user(user);
    for (name, value) in [
        ("iss", json!(base.as_str().trim_end_matches('/'))),
        ("aud", json!(asked.client)),
        ("iat", json!(issued)),
        ("exp", json!(issued.saturating_add_unsigned(lifetime))),
        ("auth_time", json!(asked.signed_in_at.div_euclid(1000))),
        ("at_hash", json!(URL_SAFE_NO_PAD.encode(half))),
    ] {
        claims.insert(name.to_owned(), value);
    }
    if let Some(nonce) = asked.nonce {
        claims.insert("nonce".to_owned(), json!(nonce));
    }
    Value::Object(claims)
}

async fn refresh(app: &App, headers: &HeaderMap, uri: &Uri, mut form: TokenRequest) -> Result<Value, Response> {
    const NOT_GOOD: &str = "the refresh token is not, or no longer, good";
    let caller = identify(app, headers, form.client_id.take(), form.client_secret.take()).await?;
    let given = form
        .refresh_token
        .ok_or_else(|| bad_request("invalid_request", "the request has no refresh_token"))?;
    let refresh_digest = digest(given.expose_secret());
    let now = clock::now();
    let unused_since = now.saturating_sub(clock::milliseconds(app.settings.refresh_token_life));
    let known = app
        .store
        .refresh_token(&refresh_digest)
        .await
        .map_err(failed)?
        .filter(|known| known.client_id == caller.id() && known.used_at >= unused_since)
        .ok_or_else(|| bad_grant(NOT_GOOD))?;
    let scope = if form.scope.trim().is_empty() {
        known.scope
    } else if form
        .scope
        .split_whitespace()
        .all(|scope| scopes::names(&known.scope, scope))
    {
        form.scope
    } else {
        return Err(bad_request(
            "invalid_scope",
            "the refresh token is not good for every scope that is asked for",
        ));
    };
    let granted = scopes::by_server(&scope)
        .ok()
        .and_then(|servers| servers.into_iter().next())
        .ok_or_else(|| bad_grant(NOT_GOOD))?;
    let user = app
        .store
        .user(known.user_id)
        .await
        .map_err(failed)?
        .ok_or_else(|| bad_grant(NOT_GOOD))?;
    let holder = Holder {
        identity: user.id,
        client: known.client_id,
        grant: Some(known.grant_id),
    };
    let mut made = make(app, &holder, &granted, now).map_err(failed)?;
    // It stays the same, as Globus Auth's does: a client that loses this answer has not lost its sign-in.
    add(&mut made.answer, "refresh_token", json!(given.expose_secret()));
    if scopes::names(&granted.scope, "openid") {
        let asked = Asked {
            client: known.client_id,
            nonce: None,
            signed_in_at: known.created_at,
        };
        add_id_token(app, headers, uri, &mut made.answer, &user, &asked)
            .await
            .map_err(failed)?;
    }
    if !app.store.refresh(&refresh_digest, &made.record).await.map_err(failed)? {
        return Err(bad_grant(NOT_GOOD));
    }
    Ok(together(vec![made.answer]))
}
