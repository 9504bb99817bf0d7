use std::sync::Arc;

use endpoint_telemetry::{Metrics, ServiceOutcome};
use reqwest::{Client, Method, StatusCode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::registration::{Registration, RegistrationReply};
use crate::auth::{AuthError, Scope, Tokens};
use crate::transport;

/// Why a call to the web service brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no token to call it with.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The service said no.
    #[error("the service refused {call} with status {status}: {body}")]
    Refused {
        /// What was asked.
        call: String,
        /// The HTTP status.
        status: u16,
        /// What came with it.
        body: String,
    },
    /// The service could not be reached.
    #[error("the service at {url} can not be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what the service answers.
    #[error("Invalid or unexpected registration data structure: {0}")]
    Answer(String),
    /// The service wants endpoints of a newer release than the one whose protocol is spoken here.
    #[error("the service needs endpoints of version {needed} or later, and this one speaks the protocol of {spoken}")]
    Version {
        /// The service's minimum.
        needed: String,
        /// Ours.
        spoken: String,
    },
}

impl ServiceError {
    /// Whether nobody answered: neither the service, nor the one who gives tokens for it.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Auth(AuthError::Unreachable { .. })
        )
    }

    /// Whether the same call may succeed later: the service, or what is in front of it, is away.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Auth(error) => error.is_passing(),
            Self::Refused { status, .. } => *status >= 500,
            Self::Answer(_) | Self::Version { .. } => false,
        }
    }
}

/// The web service, called in the name of one login.
#[derive(Debug, Clone)]
pub struct Service {
    client: Client,
    base: Url,
    tokens: Arc<Tokens>,
    metrics: Arc<Metrics>,
}

#[derive(Deserialize)]
struct Versions {
    min_ep_version: Option<String>,
}

impl Service {
    /// Will call the service at `base`.
    #[must_use]
    pub fn new(client: Client, base: Url, tokens: Arc<Tokens>, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            base,
            tokens,
            metrics,
        }
    }

    /// Checks that the service still takes endpoints of `spoken`.
    ///
    /// # Errors
    /// [`ServiceError::Version`] if it does not, and whatever hinders the question.
    pub async fn check_version(&self, spoken: &str) -> Result<(), ServiceError> {
        let answer = self.call(Method::GET, "v2/version?service=all", None).await?;
        let versions: Versions = read(answer)?;
        match versions.min_ep_version {
            Some(needed) if is_older(spoken, &needed) => Err(ServiceError::Version {
                needed,
                spoken: spoken.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Registers an endpoint: a new one, or `known` once more.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn register(
        &self,
        known: Option<Uuid>,
        registration: &Registration<'_>,
    ) -> Result<RegistrationReply, ServiceError> {
        let body = registration.body();
        let answer = match known {
            Some(id) => {
                self.call(Method::PUT, &format!("v3/endpoints/{id}"), Some(&body))
                    .await?
            }
            None => self.call(Method::POST, "v3/endpoints", Some(&body)).await?,
        };
        read(answer)
    }

    /// What the service knows of the endpoint's state: `status` is `online` or `offline`.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn status(&self, id: Uuid) -> Result<Value, ServiceError> {
        self.call(Method::GET, &format!("v2/endpoints/{id}/status"), None).await
    }

    /// Removes the endpoint from the service.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn delete(&self, id: Uuid) -> Result<(), ServiceError> {
        self.call(Method::DELETE, &format!("v2/endpoints/{id}"), None)
            .await
            .map(drop)
    }

    /// Has the service end the endpoint wherever it runs, and keep it from starting for a while (`stop --remote`).
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn lock(&self, id: Uuid) -> Result<(), ServiceError> {
        self.call(Method::POST, &format!("v3/endpoints/{id}/lock"), None)
            .await
            .map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ServiceError> {
        let outcome = self.call_uncounted(method, path, body).await;
        self.metrics.service_calls.increment(match &outcome {
            Ok(_) => ServiceOutcome::Success,
            Err(ServiceError::Refused { status: 500.., .. } | ServiceError::Answer(_)) => ServiceOutcome::Failed,
            Err(ServiceError::Refused { .. } | ServiceError::Version { .. }) => ServiceOutcome::Refused,
            Err(ServiceError::Auth(_) | ServiceError::Unreachable { .. }) => ServiceOutcome::Unreachable,
        });
        outcome
    }

    async fn call_uncounted(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ServiceError> {
        let url = self.url(path);
        let mut retried = false;
        loop {
            let token = self.tokens.token(Scope::Compute).await?;
            let answer = transport::send(|| {
                let request = self
                    .client
                    .request(method.clone(), url.clone())
                    .bearer_auth(token.expose_secret());
                match body {
                    Some(body) => request.json(body),
                    None => request,
                }
            })
            .await
            .map_err(|error| self.unreachable(&error))?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && !retried {
                retried = true;
                self.tokens.invalidate(Scope::Compute, &token).await;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED {
                self.tokens
                    .refused_by_service(&format!("{} takes no token of theirs (401)", self.base));
            }
            let bytes = answer.bytes().await.map_err(|error| self.unreachable(&error.into()))?;
            if !status.is_success() {
                return Err(ServiceError::Refused {
                    call: format!("{method} /{path}"),
                    status: status.as_u16(),
                    body: String::from_utf8_lossy(&bytes).trim().to_owned(),
                });
            }
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes).map_err(|error| {
                // The text itself is not shown: an answer to a registration holds passwords.
                ServiceError::Answer(format!(
                    "the answer to {method} /{path} is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                ))
            });
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url.set_query(query);
        url
    }

    fn unreachable(&self, error: &transport::SendError) -> ServiceError {
        ServiceError::Unreachable {
            url: self.base.to_string(),
            reason: error.to_string(),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: Value) -> Result<T, ServiceError> {
    serde_json::from_value(answer).map_err(|error| {
        let text = error.to_string();
        // Such an error may quote the value that it found, and addresses of queues hold passwords.
        ServiceError::Answer(if text.contains("://") {
            "a value is not of the type expected".to_owned()
        } else {
            text
        })
    })
}

/// Compares release numbers; what is not a number ends the comparison.
fn is_older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.trim_start_matches('v')
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect()
    };
    let (mut left, mut right) = (numbers(version), numbers(than));
    let length = left.len().max(right.len());
    left.resize(length, 0);
    right.resize(length, 0);
    left < right
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_older("3.16.1", "4.0"));
        assert!(is_older("4.9.0", "4.19.0"));
        assert!(!is_older("4.19.0", "4.19"));
        assert!(!is_older("4.19.0", "2.0.0a1"));
        assert!(!is_older("4.19.0", ""));
    }
}
