use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::scope::Scope;

/// A token is not used in the last minute of its life.
const MARGIN_SECONDS: u64 = 60;

/// A token as the Globus SDK stores it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenData {
    pub(super) resource_server: String,
    /// Whose it is; files of old SDKs do not say.
    #[serde(default)]
    pub(super) identity_id: Option<String>,
    /// What it is good for, with spaces.
    #[serde(default)]
    pub(super) scope: String,
    #[serde(serialize_with = "exposed")]
    pub(super) access_token: SecretString,
    #[serde(default, serialize_with = "exposed_if_any")]
    pub(super) refresh_token: Option<SecretString>,
    pub(super) expires_at_seconds: u64,
    #[serde(default)]
    pub(super) token_type: Option<String>,
    /// What another SDK stored with it is stored again.
    #[serde(flatten)]
    pub(super) others: Map<String, Value>,
}

impl TokenData {
    /// How long it is good for, less the last minute.
    pub(super) fn good_for(&self) -> std::time::Duration {
        std::time::Duration::from_secs(
            self.expires_at_seconds
                .saturating_sub(MARGIN_SECONDS)
                .saturating_sub(now()),
        )
    }

    /// The first of these scopes that it does not have.
    pub(super) fn lacks(&self, scopes: &[&'static str]) -> Option<&'static str> {
        let has = |scope: &str| self.scope.split_whitespace().any(|own| own == scope);
        scopes.iter().copied().find(|scope| !has(scope))
    }

    /// Why it is not what a login for this scope brings, if it is not.
    pub(super) fn unfit(&self, scopes: &[&'static str]) -> Option<String> {
        if self.refresh_token.is_none() {
            return Some(format!("No refresh_token for {}", self.resource_server));
        }
        self.lacks(scopes)
            .map(|scope| format!("Unmet scope requirements: the login is not for {scope}"))
    }

    /// Whether it is a token for this.
    pub(super) fn is_for(&self, scope: Scope) -> bool {
        self.resource_server == scope.resource_server()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn exposed_if_any<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => exposed(secret, serializer),
        None => serializer.serialize_none(),
    }
}
