//! The HTTP API, as the SDKs and endpoints of Globus Compute call it.
//!
//! A request target in absolute form (`GET http://localhost:5000/v2/version HTTP/1.1`), which a client sends to what it
//! takes for a proxy, is answered like any other: SDKs whose address is fixed can be pointed here by `HTTP_PROXY`.

mod endpoints;
mod extract;
mod functions;
mod observe;
mod probes;
mod results;
mod submit;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::auth::{self, Identity};
use crate::broker::{BROKER_USER_FRESH, BrokerUser, result_queue_prefix};
use crate::clock;
use crate::error::{ApiError, ErrorCode};

/// The oldest SDK and endpoint that may be used, and the version of the API that is spoken here.
const MIN_VERSION: &str = "3.0.0";

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2/version", get(version))
        .route("/v2/get_amqp_result_connection_url", get(result_queue_url))
        .merge(endpoints::router())
        .merge(functions::router())
        .merge(submit::router())
        .merge(results::router())
        .merge(auth::router())
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(app.settings.max_request_bytes))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe::observe))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

/// A panic is a fault of the service; its text is for the log, where the panic hook has put it.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::new(ErrorCode::InternalError, "the call failed by a fault of the service").into_response()
}

async fn no_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no such path")
}

async fn no_method() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "this path exists for other methods")
}

async fn version() -> Json<Value> {
    Json(json!({
        "api": waypost_protocol::TEMPLATE_PROTOCOL_VERSION,
        "min_sdk_version": MIN_VERSION,
        "min_ep_version": MIN_VERSION,
        "interchange": env!("CARGO_PKG_VERSION"),
    }))
}

/// Where a client reads its results. Its broker user is made at the first call, and brought back to its password by later
/// ones: a client that is refused by the broker asks here again.
async fn result_queue_url(State(app): State<Arc<App>>, Identity(client): Identity) -> Result<Json<Value>, ApiError> {
    let now = clock::now();
    if now.saturating_sub(client.broker_user_at) > BROKER_USER_FRESH {
        app.broker
            .put_user(&BrokerUser::Client(client.id), client.rotation)
            .await?;
        app.store.set_client_broker_user(client.id, now).await?;
    }
    Ok(Json(json!({
        "queue_prefix": result_queue_prefix(client.id),
        "connection_url": app.broker.client_url(&client).expose_secret(),
    })))
}
