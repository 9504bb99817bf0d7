//! What became of the credentials when they were used last: for the status, the metrics and the log.

use std::sync::{Mutex, PoisonError};

use endpoint_telemetry::{Metrics, Refused, Share};
use serde::Serialize;
use tokio::sync::watch;

use super::credentials::Login;
use super::error::AuthError;
use super::token_data::TokenData;

/// What is shown of the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CredentialsStatus {
    /// `unknown` until they were used, `valid`, `refused`, or `missing`.
    pub state: &'static str,
    /// The client, or the identity of the person, if it is known.
    pub of: Option<String>,
    /// Why they are refused or missing.
    pub why: Option<String>,
}

/// Keeps the status, and says when it changes.
pub(super) struct Health {
    status: watch::Sender<CredentialsStatus>,
    gauge: Mutex<Share<Refused>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Health").field(&*self.status.borrow()).finish()
    }
}

impl Health {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let unknown = CredentialsStatus {
            state: "unknown",
            of: None,
            why: None,
        };
        Self {
            status: watch::channel(unknown).0,
            gauge: Mutex::new(metrics.credentials_refused.share()),
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        self.status.borrow().state == "valid"
    }

    pub(super) fn status(&self) -> watch::Receiver<CredentialsStatus> {
        self.status.subscribe()
    }

    /// Notes whether there is a token. That nobody answers says nothing about the credentials.
    pub(super) fn note(&self, login: Option<&Login>, outcome: Result<&TokenData, &AuthError>) {
        let of = || match login {
            Some(Login::Client(client)) => Some(format!("client {}", client.id)),
            Some(Login::User(_)) | None => None,
        };
        match outcome {
            Ok(data) => {
                let identity = data.identity_id.as_ref();
                let of = of().or_else(|| identity.map(|identity| format!("identity {identity}")));
                self.change("valid", of, None);
            }
            Err(error) if error.is_passing() => {}
            Err(
                error @ (AuthError::Refused { .. } | AuthError::Answer { .. } | AuthError::IdentityMismatch { .. }),
            ) => {
                self.change("refused", of(), Some(error.to_string()));
            }
            Err(error) => self.change("missing", of(), Some(error.to_string())),
        }
    }

    /// Notes that a service refuses a token that Globus Auth has just given.
    pub(super) fn refused(&self, reason: &str) {
        let of = self.status.borrow().of.clone();
        self.change("refused", of, Some(reason.to_owned()));
    }

    fn change(&self, state: &'static str, of: Option<String>, why: Option<String>) {
        let new = CredentialsStatus { state, of, why };
        let before = self.status.borrow().clone();
        if before == new {
            return;
        }
        // Those that are missing are of no more use than those that are refused.
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        gauge.set(Refused::Service, u64::from(new.why.is_some()));
        drop(gauge);
        let of = new.of.as_deref().unwrap_or("a person");
        match &new.why {
            Some(why) if before.state != state => tracing::error!(of, "{}", complaint(before.state, state, why)),
            None if matches!(before.state, "refused" | "missing") => {
                tracing::info!(of, "the credentials are good again")
            }
            Some(_) | None => {}
        }
        self.status.send_replace(new);
    }
}

/// What the log says of credentials that are of no use. An endpoint that had good ones may have work in hand, and goes on;
/// what becomes of one that begins with these says who began it.
fn complaint(before: &str, state: &str, why: &str) -> String {
    let why = why.replace('\n', ", ");
    let going_on = if before == "valid" {
        "; what is in hand goes on, and it is tried again, at once when the credentials change"
    } else {
        ""
    };
    format!("the credentials are {state}: {why}{going_on}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_endpoint_that_had_good_credentials_is_said_to_go_on() {
        let later = complaint("valid", "refused", "code: invalid_client\nmessage: gone");
        assert!(later.starts_with("the credentials are refused: code: invalid_client, message: gone; what is in hand"));
        for before in ["unknown", "missing"] {
            assert_eq!(
                complaint(before, "refused", "gone"),
                "the credentials are refused: gone"
            );
        }
    }
}
