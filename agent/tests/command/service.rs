//! A web service whose answers a test writes down beforehand: for the refusals and faults that a real one can not be
//! made to give.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) user_agent: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

type Answer = (u16, Value);

#[derive(Default)]
struct Script {
    /// Answers to registrations, in turn; the last one is given again and again.
    registrations: VecDeque<Answer>,
    requests: Vec<Request>,
    /// The life of each token, in seconds.
    token_life: u64,
}

/// The service, for as long as the test runs.
#[derive(Clone)]
pub(crate) struct Service {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Service {
    /// Starts one that answers registrations with `answers`.
    pub(crate) fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(Script {
                registrations: answers.into_iter().collect(),
                requests: Vec::new(),
                token_life: 3600,
            })),
        };
        let router = Router::new().fallback(answer).with_state(Arc::clone(&service.script));
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    axum::serve(listener, router).await.unwrap();
                });
        });
        service
    }

    /// Gives tokens of so many seconds.
    pub(crate) fn with_token_life(self, seconds: u64) -> Self {
        self.script.lock().unwrap().token_life = seconds;
        self
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests for a path so far.
    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        let script = self.script.lock().unwrap();
        script
            .requests
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut script = script.lock().unwrap();
    script.requests.push(Request {
        method: method.to_string(),
        path: uri.path().to_owned(),
        user_agent: header("user-agent"),
        authorization: header("authorization"),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let count = script.requests.len();
    let (status, value) = match uri.path() {
        "/v2/oauth2/token" => (
            200,
            json!({
                "access_token": format!("hidden-token-{count}"), "scope": "all", "resource_server": "funcx_service",
                "expires_in": script.token_life, "token_type": "Bearer", "other_tokens": [],
            }),
        ),
        "/v2/version" => (200, json!({"min_sdk_version": "2.0.0", "min_ep_version": "2.0.0"})),
        path if path.starts_with("/v3/endpoints") => match script.registrations.len() {
            0 => (500, json!({"reason": "nothing was written down"})),
            1 => script.registrations[0].clone(),
            _ => script.registrations.pop_front().unwrap(),
        },
        path => (404, json!({ "reason": format!("no such path: {path}") })),
    };
    (StatusCode::from_u16(status).unwrap(), axum::Json(value)).into_response()
}
