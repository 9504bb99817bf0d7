use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, http::header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::app::App;
use crate::error::ApiError;
use crate::secrets::verify_secret;
use crate::store::{Client, SignIn, StoreError};

/// The native client that Globus Compute's SDK, its endpoint and ours are to Globus Auth. It is known everywhere.
const GLOBUS_COMPUTE: Uuid = Uuid::from_u128(0x4cf2_9807_cf21_49ec_9443_ff9a_3fb9_f81c);

/// Hashes that are computed at once: argon2 takes 19 MiB and a processor for each.
static HASHING: Semaphore = Semaphore::const_new(4);

/// A client that users may sign in for.
#[derive(Debug, Clone)]
pub(super) struct SignInClient {
    pub(super) id: Uuid,
    /// For people.
    pub(super) name: String,
    pub(super) sign_in: SignIn,
}

/// The client with this id, if users may sign in for it.
///
/// # Errors
/// The store's.
pub(super) async fn sign_in_client(app: &App, id: Uuid) -> Result<Option<SignInClient>, StoreError> {
    if id == GLOBUS_COMPUTE {
        return Ok(Some(SignInClient {
            id,
            name: "Globus Compute".to_owned(),
            sign_in: SignIn {
                native: true,
                redirect_uris: Vec::new(),
            },
        }));
    }
    let found = app.store.sign_in_client(id).await?;
    Ok(found.map(|(client, sign_in)| SignInClient {
        id,
        name: client.name,
        sign_in,
    }))
}

/// How a client says who it is when it asks for tokens.
pub(super) enum Caller {
    /// It has proved it by its secret.
    Proved(Client),
    /// A native client, which has none.
    Native(Uuid),
}

impl Caller {
    /// Its id.
    pub(super) const fn id(&self) -> Uuid {
        match self {
            Self::Proved(client) => client.id,
            Self::Native(id) => *id,
        }
    }
}

/// An error of RFC 6749, section 5.2, with what Globus's SDK reads beside it.
pub(super) fn refusal(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({
        "error": error,
        "error_description": description,
        "errors": [{"status": status.as_str(), "code": error.to_uppercase(), "title": description, "detail": description}],
    });
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    }
    response
}

fn bad_credentials() -> Response {
    refusal(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "the client's id or secret is not right",
    )
}

/// Whether a secret or password is the one with this hash.
pub(super) async fn verify(secret: SecretString, hash: String) -> bool {
    let Ok(_permit) = HASHING.acquire().await else {
        return false;
    };
    // Argon2 is slow on purpose, and so not for a thread that serves other calls.
    tokio::task::spawn_blocking(move || verify_secret(secret.expose_secret(), &hash))
        .await
        .unwrap_or(false)
}

/// The client that proves itself by its secret, in the `Authorization` header or in the form, or the native client that
/// the form names.
pub(super) async fn identify(
    app: &App,
    headers: &HeaderMap,
    id: Option<String>,
    secret: Option<SecretString>,
) -> Result<Caller, Response> {
    let basic = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            text.split_once(':')
                .map(|(id, secret)| (id.to_owned(), Some(SecretString::from(secret))))
        });
    let (id, secret) = basic.or_else(|| Some((id?, secret))).ok_or_else(bad_credentials)?;
    let id = Uuid::parse_str(&id).map_err(|_| bad_credentials())?;
    let failed = |error: StoreError| ApiError::from(error).into_response();
    let Some(secret) = secret else {
        let client = sign_in_client(app, id).await.map_err(failed)?;
        return match client {
            Some(client) if client.sign_in.native => Ok(Caller::Native(id)),
            Some(_) | None => Err(bad_credentials()),
        };
    };
    let client = app
        .store
        .client(id)
        .await
        .map_err(failed)?
        .filter(|client| client.revoked_at.is_none())
        .ok_or_else(bad_credentials)?;
    if verify(secret, client.secret_hash.clone()).await {
        Ok(Caller::Proved(client))
    } else {
        Err(bad_credentials())
    }
}

/// The client that proves itself by its secret, as [`identify`] has it.
pub(super) async fn authenticate(
    app: &App,
    headers: &HeaderMap,
    id: Option<String>,
    secret: Option<SecretString>,
) -> Result<Client, Response> {
    match identify(app, headers, id, secret).await? {
        Caller::Proved(client) => Ok(client),
        Caller::Native(_) => Err(bad_credentials()),
    }
}
