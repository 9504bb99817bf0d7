//! Tokens: when they are asked for, renewed, kept and given up. The server's answers are written down beforehand, for it
//! has to refuse, stall and count; `tests/interchange` logs in to the real one.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use endpoint::auth::{AuthError, Credentials, Scope, TokenKeeper, Tokens, keep_fresh};
use endpoint::transport;
use endpoint_telemetry::{Metrics, Refused};
use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};
use tempfile::TempDir;

const ID: &str = "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43";
const COMPUTE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";

/// A token service that answers each request as was written down, and once nothing is, grants a token.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<(u16, Option<&'static str>, Value)>,
    requests: Vec<Asked>,
    /// The only secret, or refresh token, that is taken.
    good: String,
    life: u64,
}

#[derive(Debug, Clone)]
struct Asked {
    authorization: String,
    form: Vec<(String, String)>,
    at: Instant,
}

impl Asked {
    fn value(&self, name: &str) -> &str {
        let found = self.form.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Server {
    async fn start() -> (Self, String) {
        let server = Self::default();
        server.0.lock().unwrap().life = 3600;
        let router = Router::new()
            .route("/v2/oauth2/token", post(answer))
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    fn takes(&self, good: &str) {
        good.clone_into(&mut self.0.lock().unwrap().good);
    }

    fn answers(&self, status: u16, retry_after: Option<&'static str>, body: Value) {
        self.0.lock().unwrap().answers.push_back((status, retry_after, body));
    }

    fn grants_for(&self, seconds: u64) {
        self.0.lock().unwrap().life = seconds;
    }

    fn requests(&self) -> Vec<Asked> {
        self.0.lock().unwrap().requests.clone()
    }
}

async fn answer(State(server): State<Server>, headers: HeaderMap, Form(form): Form<Vec<(String, String)>>) -> Response {
    let mut script = server.0.lock().unwrap();
    let authorization = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    let asked = Asked {
        authorization: authorization.unwrap_or_default(),
        form,
        at: Instant::now(),
    };
    script.requests.push(asked.clone());
    if let Some((status, retry_after, body)) = script.answers.pop_front() {
        let mut answer = (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response();
        if let Some(value) = retry_after {
            answer.headers_mut().insert("retry-after", value.parse().unwrap());
        }
        return answer;
    }
    let (offered, refusal) = if asked.value("grant_type") == "refresh_token" {
        (asked.value("refresh_token").to_owned(), (400, "invalid_grant"))
    } else {
        let (_, encoded) = asked.authorization.split_once(' ').unwrap_or_default();
        use base64::Engine as _;
        let plain = base64::prelude::BASE64_STANDARD.decode(encoded).unwrap_or_default();
        let plain = String::from_utf8(plain).unwrap();
        let (_, secret) = plain.split_once(':').unwrap_or_default();
        (secret.to_owned(), (401, "invalid_client"))
    };
    if !script.good.is_empty() && offered != script.good {
        let (status, error) = refusal;
        let status = StatusCode::from_u16(status).unwrap();
        return (status, axum::Json(json!({ "error": error }))).into_response();
    }
    let number = script.requests.len();
    let compute = asked.value("scope").is_empty() || asked.value("scope") == COMPUTE;
    axum::Json(json!({
        "access_token": format!("hidden-token-{number}"),
        "scope": if compute { COMPUTE } else { asked.value("scope") },
        "resource_server": if compute { "funcx_service" } else { "auth.globus.org" },
        "expires_in": script.life, "token_type": "Bearer", "other_tokens": [],
    }))
    .into_response()
}

/// Tokens for what is in these folders and variables.
fn tokens(url: &str, base: &Path, variables: &[(&str, &str)]) -> Tokens {
    measured(url, base, variables, &Metrics::new())
}

fn measured(url: &str, base: &Path, variables: &[(&str, &str)], metrics: &Metrics) -> Tokens {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let credentials = Credentials::new(base, "production", |name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    let client = transport::client(|_| None).unwrap();
    Tokens::new(client, url.parse().unwrap(), credentials, metrics)
}

async fn of_client() -> (Server, Tokens, TempDir) {
    let (server, url) = Server::start().await;
    let base = tempfile::tempdir().unwrap();
    let variables = [
        ("GLOBUS_COMPUTE_CLIENT_ID", ID),
        ("GLOBUS_COMPUTE_CLIENT_SECRET", "hidden-secret"),
    ];
    let tokens = tokens(&url, base.path(), &variables);
    (server, tokens, base)
}

async fn token(tokens: &Tokens) -> Result<String, AuthError> {
    let token = tokens.token(Scope::Compute).await?;
    Ok(token.expose_secret().to_owned())
}

/// A `storage.db` as the SDK makes it, with one token.
async fn store(path: &Path, namespace: &str, data: &Value) {
    use sqlx::Connection as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut connection = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
    // Version 1 has one table more than this, which the endpoint does not use.
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS token_storage (namespace VARCHAR NOT NULL, resource_server VARCHAR NOT NULL, \
         token_data_json VARCHAR NOT NULL, PRIMARY KEY (namespace, resource_server))",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query("REPLACE INTO token_storage VALUES (?, ?, ?)")
        .bind(namespace)
        .bind(data["resource_server"].as_str().unwrap())
        .bind(data.to_string())
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn expired(refresh_token: Option<&str>) -> Value {
    json!({"resource_server": "funcx_service", "scope": COMPUTE, "access_token": "old", "refresh_token": refresh_token,
        "expires_at_seconds": 1, "token_type": "Bearer", "identity_id": ID})
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_request_and_its_token() {
    let (server, tokens, _base) = of_client().await;
    let asked = (0..50).map(|_| token(&tokens));
    let got = futures_util::future::try_join_all(asked).await.unwrap();
    assert!(got.iter().all(|token| token == "hidden-token-1"), "{got:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].value("grant_type"), "client_credentials");
    assert_eq!(requests[0].value("scope"), COMPUTE);
    assert!(requests[0].authorization.starts_with("Basic "));
}

#[tokio::test]
async fn a_token_is_not_used_in_the_last_minute_of_its_life() {
    let (server, tokens, _base) = of_client().await;
    server.grants_for(59);
    token(&tokens).await.unwrap();
    server.grants_for(600);
    assert_eq!(token(&tokens).await.unwrap(), "hidden-token-2");
    assert_eq!(token(&tokens).await.unwrap(), "hidden-token-2");
}

#[tokio::test]
async fn a_token_that_a_service_refused_is_not_used_again() {
    let (_server, tokens, _base) = of_client().await;
    let first = tokens.token(Scope::Compute).await.unwrap();
    tokens.invalidate(Scope::Compute, &first).await;
    assert_eq!(token(&tokens).await.unwrap(), "hidden-token-2");
    // A late complaint about the old one costs the new one nothing.
    tokens.invalidate(Scope::Compute, &first).await;
    assert_eq!(token(&tokens).await.unwrap(), "hidden-token-2");
}

#[tokio::test]
async fn a_service_in_trouble_is_asked_again_and_not_before_it_said() {
    let (server, tokens, _base) = of_client().await;
    server.answers(503, Some("1"), json!({}));
    server.answers(429, None, json!({}));
    assert_eq!(token(&tokens).await.unwrap(), "hidden-token-3");
    let requests = server.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
    assert!(requests[2].at - requests[1].at >= Duration::from_millis(250));
    assert_eq!(tokens.status().borrow().state, "valid");
}

#[tokio::test]
async fn refused_credentials_are_shown_and_not_tried_in_a_storm() {
    let (server, url) = Server::start().await;
    server.takes("another");
    let (base, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
    let variables = [
        ("FUNCX_SDK_CLIENT_ID", ID),
        ("FUNCX_SDK_CLIENT_SECRET", "hidden-secret"),
    ];
    let tokens = measured(&url, base.path(), &variables, &metrics);
    assert_eq!(tokens.status().borrow().state, "unknown");
    for _ in 0..5 {
        let error = token(&tokens).await.unwrap_err();
        assert!(matches!(error, AuthError::Refused { status: 401, .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hidden"));
    }
    assert_eq!(server.requests().len(), 1);
    let status = tokens.status().borrow().clone();
    assert_eq!(
        (status.state, status.of.as_deref()),
        ("refused", Some(&*format!("client {ID}")))
    );
    assert!(status.why.unwrap().contains("invalid_client"));
    assert_eq!(metrics.credentials_refused.get(Refused::Service), 1);
}

#[tokio::test]
async fn a_secret_that_is_rotated_in_its_folder_is_taken_up_by_itself() {
    let (server, url) = Server::start().await;
    server.takes("second");
    let (base, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("GLOBUS_COMPUTE_CLIENT_ID"), ID).unwrap();
    fs::write(folder.path().join("GLOBUS_COMPUTE_CLIENT_SECRET"), "first\n").unwrap();
    let place = folder.path().display().to_string();
    let metrics = Metrics::new();
    let tokens = Arc::new(measured(
        &url,
        base.path(),
        &[("WAYPOST_CREDENTIALS_DIR", &place)],
        &metrics,
    ));
    let kept = Arc::clone(&tokens);
    let keeping = tokio::spawn(async move { keep_fresh(&kept).await });
    let mut status = tokens.status();
    status.wait_for(|status| status.state == "refused").await.unwrap();
    // As a kubelet does: the new one is there from one moment to the next.
    fs::write(folder.path().join("new"), "second\n").unwrap();
    fs::rename(
        folder.path().join("new"),
        folder.path().join("GLOBUS_COMPUTE_CLIENT_SECRET"),
    )
    .unwrap();
    let within = Duration::from_secs(10);
    let mended = tokio::time::timeout(within, status.wait_for(|status| status.state == "valid")).await;
    assert!(
        mended.is_ok(),
        "the next try without a change comes after the bound of this test"
    );
    assert_eq!(metrics.credentials_refused.get(Refused::Service), 0);
    keeping.abort();
}

#[tokio::test]
async fn a_person_s_token_is_refreshed_and_stored_for_the_sdk() {
    let (server, url) = Server::start().await;
    server.takes("hidden-refresh");
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("storage.db");
    store(&path, "user/production", &expired(Some("hidden-refresh"))).await;
    assert_eq!(token(&tokens(&url, base.path(), &[])).await.unwrap(), "hidden-token-1");
    let asked = &server.requests()[0];
    assert_eq!(asked.value("client_id"), "4cf29807-cf21-49ec-9443-ff9a3fb9f81c");
    assert_eq!(asked.value("refresh_token"), "hidden-refresh");
    // Another process finds what this one stored.
    let other = tokens(&url, base.path(), &[]);
    assert_eq!(token(&other).await.unwrap(), "hidden-token-1");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(other.status().borrow().of.as_deref(), Some(&*format!("identity {ID}")));
}

#[tokio::test]
async fn a_login_that_is_of_no_use_says_why_and_how_to_log_in() {
    let (server, url) = Server::start().await;
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("storage.db");
    let tokens = tokens(&url, base.path(), &[]);
    let mut narrow = expired(Some("hidden-refresh"));
    narrow["scope"] = json!("openid");
    let cases = [
        (None, "Nobody has logged in"),
        (Some(expired(None)), "No refresh_token for funcx_service"),
        (Some(narrow), "Unmet scope requirements"),
    ];
    for (stored, expected) in cases {
        if let Some(data) = stored {
            store(&path, "user/production", &data).await;
        }
        let error = token(&tokens).await.unwrap_err();
        assert!(matches!(error, AuthError::LoginRequired(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("endpoint login"), "{text}");
        assert_eq!(tokens.status().borrow().state, "missing");
    }
    // A storage that another program mends is looked at anew.
    server.takes("mended");
    store(&path, "user/production", &expired(Some("revoked"))).await;
    let error = token(&tokens).await.unwrap_err();
    assert!(error.wants_login(), "{error}");
    store(&path, "user/production", &expired(Some("mended"))).await;
    token(&tokens).await.unwrap();
    assert_eq!(tokens.status().borrow().state, "valid");
}

/// Keeps tokens as the state does.
#[derive(Debug, Default)]
struct Shelf(Mutex<Option<Vec<u8>>>);

impl TokenKeeper for Shelf {
    fn load(&self) -> BoxFuture<'_, Result<Option<Zeroizing<Vec<u8>>>, String>> {
        Box::pin(async { Ok(self.0.lock().unwrap().clone().map(Zeroizing::new)) })
    }

    fn save<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            *self.0.lock().unwrap() = Some(content.to_vec());
            Ok(())
        })
    }

    fn forget<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let mut kept = self.0.lock().unwrap();
            if kept.as_deref() == Some(content) {
                *kept = None;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn refreshed_tokens_of_a_mounted_storage_are_kept_until_another_is_mounted() {
    let (server, url) = Server::start().await;
    let (base, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mounted = folder.path().join("storage.db");
    store(&mounted, "user/production", &expired(Some("first"))).await;
    let before = fs::read(&mounted).unwrap();
    let place = folder.path().display().to_string();
    let shelf = Arc::new(Shelf::default());
    let new = || tokens(&url, base.path(), &[("WAYPOST_CREDENTIALS_DIR", &place)]).with_keeper(shelf.clone());
    assert_eq!(token(&new()).await.unwrap(), "hidden-token-1");
    assert_eq!(fs::read(&mounted).unwrap(), before, "it is only read");
    assert!(!base.path().join("storage.db").exists());
    // The next pod goes on with what the one before refreshed.
    let next = new();
    assert_eq!(token(&next).await.unwrap(), "hidden-token-1");
    assert_eq!(server.requests().len(), 1);
    // The user's own change wins, at once.
    store(&mounted, "user/production", &expired(Some("second"))).await;
    assert_eq!(token(&next).await.unwrap(), "hidden-token-2");
    assert_eq!(server.requests()[1].value("refresh_token"), "second");
    assert_eq!(token(&new()).await.unwrap(), "hidden-token-2");
}

#[tokio::test]
async fn what_was_refreshed_of_a_login_is_removed_when_another_takes_its_place_and_not_when_it_is_away() {
    let (server, url) = Server::start().await;
    let (base, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mounted = folder.path().join("storage.db");
    store(&mounted, "user/production", &expired(Some("first"))).await;
    let place = folder.path().display().to_string();
    let shelf = Arc::new(Shelf::default());
    let tokens = Arc::new(tokens(&url, base.path(), &[("WAYPOST_CREDENTIALS_DIR", &place)]).with_keeper(shelf.clone()));
    let kept = || shelf.0.lock().unwrap().clone();
    let keeping = Arc::clone(&tokens);
    let keeping = tokio::spawn(async move { keep_fresh(&keeping).await });
    let mut status = tokens.status();
    let within = Duration::from_secs(60);
    let becomes = async |status: &mut tokio::sync::watch::Receiver<endpoint::auth::CredentialsStatus>, state| {
        let seen = tokio::time::timeout(within, status.wait_for(|status| status.state == state)).await;
        seen.unwrap().unwrap();
    };
    becomes(&mut status, "valid").await;
    let refreshed = kept().unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&mounted, &aside).unwrap();
    becomes(&mut status, "missing").await;
    fs::rename(&aside, &mounted).unwrap();
    becomes(&mut status, "valid").await;
    assert_eq!(
        kept(),
        Some(refreshed),
        "a Secret that was wiped for a while is no other login"
    );
    assert_eq!(server.requests().len(), 1);

    // A token that is good for an hour: nothing is refreshed, so nothing would overwrite what is kept.
    let mut other = expired(Some("second"));
    other["access_token"] = json!("good-for-an-hour");
    let in_an_hour = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        + Duration::from_secs(3600);
    other["expires_at_seconds"] = json!(in_an_hour.as_secs());
    let new = folder.path().join("new");
    store(&new, "user/production", &other).await;
    fs::rename(&new, &mounted).unwrap();
    let gone = async {
        while kept().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, gone).await.unwrap();
    assert_eq!(token(&tokens).await.unwrap(), "good-for-an-hour");
    assert_eq!(server.requests().len(), 1);
    keeping.abort();
}
