use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;

/// The process answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// For so long the database may take to answer: whoever probes waits no longer.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// The broker and the database can be used.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ping = tokio::time::timeout(PING_PATIENCE, app.store.ping());
    let store = matches!(ping.await, Ok(Ok(())));
    let broker = app.broker.live().is_ok();
    let status = if store && broker {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"database": store, "broker": broker}))).into_response()
}

/// The metrics in Prometheus's text form.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    if let Ok(length) = app.store.outbox_length().await {
        app.metrics.outbox.set(length);
    }
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.metrics.text())
}
