//! What a client is told when a call fails.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use uuid::Uuid;

use crate::app::WorkError;
use crate::broker::BrokerError;
use crate::signing::SigningError;
use crate::store::StoreError;

/// The kinds of failed calls. Clients see the name as `code`, with the HTTP status beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// No token, or one that is not (or no longer) good.
    UserUnauthenticated,
    /// The token is good, but not for this service.
    ForbiddenScope,
    /// A body or parameter is not what it has to be.
    RequestMalformed,
    /// The body as a whole is larger than is read.
    RequestTooLarge,
    /// An argument is well formed and not acceptable.
    RequestInvalid,
    /// A task's payload is over the limit.
    PayloadTooLarge,
    /// There is no such path.
    NotFound,
    /// The path exists for other methods.
    MethodNotAllowed,
    /// There is no such function.
    FunctionNotFound,
    /// The function is another's, and not shared.
    FunctionAccessForbidden,
    /// The endpoint's allow-list does not have the function.
    FunctionNotPermitted,
    /// There is no such endpoint.
    EndpointNotFound,
    /// The endpoint is another's, and not shared.
    EndpointAccessForbidden,
    /// The endpoint was stopped remotely a moment ago and may not register yet.
    EndpointLocked,
    /// There is no such task.
    TaskNotFound,
    /// There is no such task group.
    TaskGroupNotFound,
    /// The task group is another's.
    TaskGroupAccessForbidden,
    /// The database or the broker does not answer; the same call may succeed later.
    ServiceUnavailable,
    /// A fault of the service.
    InternalError,
}

impl ErrorCode {
    /// The name that clients see.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::UserUnauthenticated => "USER_UNAUTHENTICATED",
            Self::ForbiddenScope => "FORBIDDEN_SCOPE",
            Self::RequestMalformed => "REQUEST_MALFORMED",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::RequestInvalid => "REQUEST_INVALID",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::FunctionNotFound => "FUNCTION_NOT_FOUND",
            Self::FunctionAccessForbidden => "FUNCTION_ACCESS_FORBIDDEN",
            Self::FunctionNotPermitted => "FUNCTION_NOT_PERMITTED",
            Self::EndpointNotFound => "ENDPOINT_NOT_FOUND",
            Self::EndpointAccessForbidden => "ENDPOINT_ACCESS_FORBIDDEN",
            Self::EndpointLocked => "RESOURCE_LOCKED",
            Self::TaskNotFound => "TASK_NOT_FOUND",
            Self::TaskGroupNotFound => "TASK_GROUP_NOT_FOUND",
            Self::TaskGroupAccessForbidden => "TASK_GROUP_ACCESS_FORBIDDEN",
            Self::ServiceUnavailable => "SERVICE_UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// The HTTP status that goes with it.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::UserUnauthenticated => StatusCode::UNAUTHORIZED,
            Self::ForbiddenScope
            | Self::FunctionAccessForbidden
            | Self::FunctionNotPermitted
            | Self::EndpointAccessForbidden
            | Self::TaskGroupAccessForbidden => StatusCode::FORBIDDEN,
            Self::RequestMalformed => StatusCode::BAD_REQUEST,
            Self::RequestTooLarge | Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound
            | Self::FunctionNotFound
            | Self::EndpointNotFound
            | Self::TaskNotFound
            | Self::TaskGroupNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::EndpointLocked => StatusCode::LOCKED,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A failed call: what its client is told, in the form in which globus-sdk reads errors (`code`, `message`) and in the
/// older one of the Compute service (`reason`, `status`, `http_status_code`).
#[derive(Debug)]
pub(crate) struct ApiError {
    code: ErrorCode,
    message: String,
    /// The argument that is at fault, as a path into the body.
    field: Option<String>,
}

impl ApiError {
    /// An error with this sentence.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
        }
    }

    /// An error that one argument is the cause of.
    pub(crate) fn field(code: ErrorCode, field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self {
            code,
            message: format!("{field}: {message}"),
            field: Some(field),
        }
    }

    /// No such function.
    pub(crate) fn function_not_found(id: Uuid) -> Self {
        Self::new(
            ErrorCode::FunctionNotFound,
            format!("Function {id} could not be resolved"),
        )
    }

    /// No such endpoint.
    pub(crate) fn endpoint_not_found(id: Uuid) -> Self {
        Self::new(
            ErrorCode::EndpointNotFound,
            format!("Endpoint {id} could not be resolved"),
        )
    }

    /// Another's endpoint.
    pub(crate) fn endpoint_forbidden(id: Uuid) -> Self {
        Self::new(
            ErrorCode::EndpointAccessForbidden,
            format!("Unauthorized access to endpoint {id}"),
        )
    }

    /// No broker now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServiceUnavailable, message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a call failed for want of the database");
        if error.is_full() {
            return Self::unavailable(
                "the disk of the service's database is full, so nothing was changed; try again when there is room",
            );
        }
        Self::unavailable("the service's database does not answer; try again")
    }
}

impl From<SigningError> for ApiError {
    fn from(error: SigningError) -> Self {
        if let SigningError::Store(error) = error {
            return error.into();
        }
        tracing::error!(%error, "no id_token can be signed");
        Self::new(
            ErrorCode::InternalError,
            "the service has no key to sign id_tokens with by a fault of its own",
        )
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        tracing::warn!(%error, "a call failed for want of the broker");
        Self::unavailable("the service's message broker does not answer; try again")
    }
}

impl From<WorkError> for ApiError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Broker(error) => error.into(),
            WorkError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = json!({
            "code": self.code.name(),
            "message": self.message,
            "reason": self.message,
            "status": "Failed",
            "http_status_code": status.as_u16(),
            "error_args": self.field.into_iter().collect::<Vec<_>>(),
            "request_id": Uuid::new_v4().to_string(),
        });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
