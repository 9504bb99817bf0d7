use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, ErrorCode};

/// The UUID in a path.
pub(super) struct PathId(pub(super) Uuid);

impl FromRequestParts<Arc<App>> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|error| ApiError::new(ErrorCode::RequestMalformed, error.body_text()))?;
        parse_id("path", &text).map(Self)
    }
}

/// Reads a UUID; `field` is where it stood.
pub(super) fn parse_id(field: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text)
        .map_err(|_| ApiError::field(ErrorCode::RequestMalformed, field, format!("{text:?} is not a UUID")))
}

/// A JSON body. What is wrong with it is told with the path of the field.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| {
            let response = rejection.into_response();
            if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::new(
                    ErrorCode::RequestTooLarge,
                    format!(
                        "the request's body has more than {} bytes; submit fewer tasks at once (Executor: batch_size)",
                        app.settings.max_request_bytes
                    ),
                )
            } else {
                ApiError::new(ErrorCode::RequestMalformed, "the request's body could not be read")
            }
        })?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            // The parser has no path to tell when the text ends too early.
            if path == "." || path == "?" {
                ApiError::field(ErrorCode::RequestMalformed, "body", inner)
            } else {
                ApiError::field(ErrorCode::RequestMalformed, path, inner)
            }
        })?;
        reader
            .end()
            .map_err(|error| ApiError::field(ErrorCode::RequestMalformed, "body", error))?;
        Ok(Self(value))
    }
}
