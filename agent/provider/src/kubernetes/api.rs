//! One request to the API server: counted, bounded in time, and its failure sorted by what can be done about it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use kube::core::Status;

use super::limits::RateLimit;

/// A request that had no answer for so long is one of unknown outcome.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a request was not done, or may not have been.
#[derive(Debug, Clone)]
pub(super) enum ApiError {
    /// The API server answered, and said no.
    Answered(Box<Status>),
    /// Nobody knows whether it was done: no connection, no answer in time, or an error within the server.
    Unsure(String),
    /// The client can not be used at all: no configuration, for one.
    Unusable(String),
}

impl ApiError {
    pub(super) fn of(error: kube::Error) -> Self {
        if matches!(
            error,
            kube::Error::InferConfig(_) | kube::Error::InferKubeconfig(_) | kube::Error::TlsRequired
        ) {
            return Self::Unusable(chain(&error));
        }
        if let kube::Error::Api(status) = error {
            return if is_unsure(&status) {
                Self::Unsure(words(&status))
            } else {
                Self::Answered(status)
            };
        }
        Self::Unsure(chain(&error))
    }

    /// Whether the API server says that there is no such object.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Answered(status) if status.is_not_found())
    }

    /// Whether the agent's account may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Answered(status) if status.is_forbidden())
    }

    /// Whether the same request may be answered otherwise when it is made again.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unsure(_))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => f.write_str(&words(status)),
            Self::Unsure(words) => write!(f, "the Kubernetes API can not be reached: {words}"),
            Self::Unusable(words) => write!(f, "there is no way to the Kubernetes API: {words}"),
        }
    }
}

impl std::error::Error for ApiError {}

/// Answers that say nothing about whether it was done. "failed calling webhook" is a 500, but a decided one.
fn is_unsure(status: &Status) -> bool {
    match status.code {
        408 | 429 | 502..=504 => true,
        500 => !status.message.contains("webhook"),
        _ => false,
    }
}

fn words(status: &Status) -> String {
    match (status.message.is_empty(), status.reason.is_empty()) {
        (false, _) => status.message.clone(),
        (true, false) => status.reason.clone(),
        (true, true) => format!("HTTP status {}", status.code),
    }
}

/// An error and all that caused it: the outermost of hyper's says little. Each part once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

/// Makes one request.
pub(super) async fn call<T>(limit: &RateLimit, request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    limit.permit().await;
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(ApiError::of),
        Err(_) => Err(ApiError::Unsure(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> ApiError {
        ApiError::of(kube::Error::Api(
            Status::failure(message, reason).with_code(code).boxed(),
        ))
    }

    #[test]
    fn only_an_answer_that_decides_nothing_is_transient() {
        for (code, reason, message, transient) in [
            (429, "TooManyRequests", "slow down", true),
            (503, "ServiceUnavailable", "", true),
            (504, "Timeout", "", true),
            (500, "InternalError", "etcdserver: request timed out", true),
            (
                500,
                "InternalError",
                "failed calling webhook \"w\": no endpoints",
                false,
            ),
            (403, "Forbidden", "exceeded quota", false),
            (409, "AlreadyExists", "pods \"a\" already exists", false),
            (422, "Invalid", "", false),
            (404, "NotFound", "", false),
        ] {
            assert_eq!(api(code, reason, message).is_transient(), transient, "{code} {message}");
        }
    }

    #[test]
    fn the_words_are_the_servers_own() {
        let forbidden = api(
            403,
            "Forbidden",
            "pods is forbidden: User \"a\" cannot create resource \"pods\"",
        );
        assert!(!forbidden.is_missing());
        assert_eq!(
            forbidden.to_string(),
            "pods is forbidden: User \"a\" cannot create resource \"pods\""
        );
    }
}
