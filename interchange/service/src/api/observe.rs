use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;

/// The methods that have a label of their own.
const KNOWN_METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
];

/// Counts and logs every call. The label is the route, not the path: paths hold ids.
pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    let seconds = started.elapsed().as_secs_f64();
    // An unheard-of method is up to the caller, and label values are not.
    let is_known = route != "(none)" && KNOWN_METHODS.contains(&method);
    let label = if is_known { method.as_str() } else { "(any)" };
    app.metrics
        .requests
        .with_label_values(&[&route, label, status.as_str()])
        .inc();
    app.metrics
        .request_seconds
        .with_label_values(&[&route])
        .observe(seconds);
    if status.is_server_error() {
        tracing::warn!(%method, path, status = status.as_u16(), seconds, "call failed");
    } else {
        tracing::debug!(%method, path, status = status.as_u16(), seconds, "call answered");
    }
    response
}
