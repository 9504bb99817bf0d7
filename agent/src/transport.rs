//! HTTP calls that are tried again where that is of use, by the rules of the Globus SDK.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode};

/// Calls that fail for a passing reason are tried again so many times.
const RETRIES: u32 = 5;
/// The longest wait between two tries.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Why no HTTP client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `GLOBUS_SDK_VERIFY_SSL` is neither a boolean nor a file of certificates.
    #[error("GLOBUS_SDK_VERIFY_SSL must be true, false, or a file with certificates in PEM form (it is {0:?})")]
    Verify(String),
    /// The file of certificates can not be used.
    #[error("the certificates in {path} can not be used: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The TLS stack or the proxy settings of the environment are unusable.
    #[error("the HTTP client can not be set up: {0}")]
    Setup(String),
}

/// Makes the client for all calls: our user agent, the proxies of the environment as Python's requests knows them,
/// and the certificates of the machine or of `GLOBUS_SDK_VERIFY_SSL`.
///
/// # Errors
/// [`ClientError`] if a setting of the environment can not be used.
pub fn client(variable: impl Fn(&str) -> Option<String>) -> Result<Client, ClientError> {
    let mut builder = Client::builder()
        .user_agent(concat!("waypost-endpoint/", env!("CARGO_PKG_VERSION")))
        .timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(20));
    if let Some(verify) = variable("GLOBUS_SDK_VERIFY_SSL") {
        match verify.to_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => {}
            "n" | "no" | "f" | "false" | "off" | "0" => {
                tracing::warn!("GLOBUS_SDK_VERIFY_SSL is off: the service's certificate is not checked");
                builder = builder.tls_danger_accept_invalid_certs(true);
            }
            _ => {
                let path = PathBuf::from(&verify);
                let pem = std::fs::read(&path).map_err(|_| ClientError::Verify(verify))?;
                let certificates =
                    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| ClientError::Certificates {
                        path,
                        reason: error.to_string(),
                    })?;
                builder = builder.tls_certs_merge(certificates);
            }
        }
    }
    builder.build().map_err(|error| ClientError::Setup(describe(&error)))
}

/// Sends a request; a network error or an answer of 429, 500, 502, 503 or 504 is tried again after
/// (0.25 to 0.75) x 2^n seconds, or after as long as the answer's `Retry-After` says.
///
/// # Errors
/// The last network error. An answer of whatever status is no error here.
pub(crate) async fn send(make: impl Fn() -> RequestBuilder) -> Result<Response, reqwest::Error> {
    let mut attempt = 0;
    loop {
        let outcome = make().send().await;
        let wait = match &outcome {
            Ok(response) if is_passing(response.status()) => {
                retry_after(response).unwrap_or_else(|| back_off(attempt, rand::random::<f64>()))
            }
            Ok(_) => return outcome,
            Err(error) if error.is_builder() => return outcome,
            Err(_) => back_off(attempt, rand::random::<f64>()),
        };
        if attempt == RETRIES {
            return outcome;
        }
        match &outcome {
            Ok(response) => tracing::debug!(status = %response.status(), ?wait, "the call is tried again"),
            Err(error) => tracing::debug!(error = %describe(error), ?wait, "the call is tried again"),
        }
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(BACK_OFF_MAX))
}

/// The wait before try `attempt + 2`; `random` is from 0 to 1.
fn back_off(attempt: u32, random: f64) -> Duration {
    let seconds = (0.25 + 0.5 * random) * f64::from(1_u32 << attempt.min(16));
    Duration::from_secs_f64(seconds).min(BACK_OFF_MAX)
}

/// An error of the HTTP client with its causes, and without the address's query.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
        assert_eq!(back_off(0, 0.0), Duration::from_millis(250));
        assert_eq!(back_off(0, 1.0), Duration::from_millis(750));
        assert_eq!(back_off(3, 0.0), Duration::from_secs(2));
        assert_eq!(back_off(40, 1.0), BACK_OFF_MAX);
    }

    #[test]
    fn a_bad_certificate_setting_is_named() {
        let error = client(|_| Some("/no/such/file".to_owned())).unwrap_err();
        assert!(error.to_string().contains("GLOBUS_SDK_VERIFY_SSL"));
    }
}
