use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use super::Login;
use crate::transport;

/// A token is not used in the last minute of its life.
const MARGIN: Duration = Duration::from_secs(60);

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The compute service.
    Compute,
    /// Globus Auth itself: who am I.
    Auth,
}

impl Scope {
    const fn text(self) -> &'static str {
        match self {
            Self::Compute => "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all",
            Self::Auth => "openid urn:globus:auth:scope:auth.globus.org:manage_projects",
        }
    }

    const fn resource_server(self) -> &'static str {
        match self {
            Self::Compute => "funcx_service",
            Self::Auth => "auth.globus.org",
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Globus Auth refused.
    #[error("An Auth API error occurred.\nHTTP status: {status}\ncode: {code}\nmessage: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The machine's word for it.
        code: String,
        /// The sentence that came with it.
        message: String,
    },
    /// Globus Auth could not be reached.
    #[error("{url} can not be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what Globus Auth answers.
    #[error("{url} gave an answer that is not understood: {reason}")]
    Answer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Gets tokens and keeps them until shortly before they expire.
#[derive(Debug)]
pub struct Tokens {
    client: Client,
    base: Url,
    login: Login,
    kept: Mutex<HashMap<Scope, Kept>>,
}

#[derive(Debug)]
struct Kept {
    token: SecretString,
    usable_until: Instant,
}

/// The identities of the one who logged in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identities {
    /// The identity that was used.
    pub sub: Uuid,
    /// All identities linked with it, itself included.
    #[serde(default)]
    pub identity_set: Vec<Identity>,
}

/// One identity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// Its id.
    pub sub: Uuid,
}

#[derive(Deserialize)]
struct Grant {
    access_token: SecretString,
    resource_server: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Grants {
    #[serde(flatten)]
    first: Grant,
    #[serde(default)]
    other_tokens: Vec<Grant>,
}

impl Tokens {
    /// Will get tokens for `login` from the Globus Auth at `base`.
    #[must_use]
    pub fn new(client: Client, base: Url, login: Login) -> Self {
        Self {
            client,
            base,
            login,
            kept: Mutex::new(HashMap::new()),
        }
    }

    /// A token that is good for at least another minute.
    ///
    /// # Errors
    /// [`AuthError`] if Globus Auth does not give one.
    pub async fn token(&self, scope: Scope) -> Result<SecretString, AuthError> {
        // The lock is held over the call, so that callers at the same moment share one token.
        let mut kept = self.kept.lock().await;
        if let Some(entry) = kept.get(&scope)
            && Instant::now() < entry.usable_until
        {
            return Ok(entry.token.clone());
        }
        let grant = self.grant(scope).await?;
        let life = Duration::from_secs(grant.expires_in);
        kept.insert(
            scope,
            Kept {
                token: grant.access_token.clone(),
                usable_until: Instant::now() + life.saturating_sub(MARGIN),
            },
        );
        Ok(grant.access_token)
    }

    /// Forgets the token of a scope, because a service refused it.
    pub async fn invalidate(&self, scope: Scope) {
        self.kept.lock().await.remove(&scope);
    }

    /// Who the login is.
    ///
    /// # Errors
    /// [`AuthError`] if Globus Auth does not say.
    pub async fn identities(&self) -> Result<Identities, AuthError> {
        let url = self.url("v2/oauth2/userinfo");
        let mut retried = false;
        loop {
            let token = self.token(Scope::Auth).await?;
            let answer = transport::send(|| self.client.get(url.clone()).bearer_auth(token.expose_secret())).await;
            let answer = answer.map_err(|error| self.unreachable(&error))?;
            if answer.status() == StatusCode::UNAUTHORIZED && !retried {
                retried = true;
                self.invalidate(Scope::Auth).await;
                continue;
            }
            return read(answer, &url).await;
        }
    }

    async fn grant(&self, scope: Scope) -> Result<Grant, AuthError> {
        let url = self.url("v2/oauth2/token");
        let Login::Client(credentials) = &self.login;
        let form = [("grant_type", "client_credentials"), ("scope", scope.text())];
        let answer = transport::send(|| {
            self.client
                .post(url.clone())
                .basic_auth(&credentials.id, Some(credentials.secret.expose_secret()))
                .form(&form)
        })
        .await
        .map_err(|error| self.unreachable(&error))?;
        let Grants { first, other_tokens } = read(answer, &url).await?;
        std::iter::once(first)
            .chain(other_tokens)
            .find(|grant| grant.resource_server == scope.resource_server())
            .ok_or_else(|| AuthError::Answer {
                url: url.to_string(),
                reason: format!("it has no token for {}", scope.resource_server()),
            })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }

    fn unreachable(&self, error: &reqwest::Error) -> AuthError {
        AuthError::Unreachable {
            url: self.base.to_string(),
            reason: transport::describe(error),
        }
    }
}

async fn read<T: for<'de> Deserialize<'de>>(answer: reqwest::Response, url: &Url) -> Result<T, AuthError> {
    let status = answer.status();
    let bytes = answer.bytes().await.map_err(|error| AuthError::Unreachable {
        url: url.to_string(),
        reason: transport::describe(&error),
    })?;
    if !status.is_success() {
        return Err(refusal(status, &bytes));
    }
    // The error names a place, never the text around it: the text holds tokens.
    serde_json::from_slice(&bytes).map_err(|error| AuthError::Answer {
        url: url.to_string(),
        reason: format!(
            "it is not the JSON expected (line {}, column {})",
            error.line(),
            error.column()
        ),
    })
}

/// Globus Auth says `{"error": "invalid_client", "error_description": ...}`, or lists `errors`.
fn refusal(status: StatusCode, body: &[u8]) -> AuthError {
    #[derive(Deserialize, Default)]
    struct Body {
        error: Option<String>,
        error_description: Option<String>,
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: Option<String>,
        detail: Option<String>,
    }
    let mut body: Body = serde_json::from_slice(body).unwrap_or_default();
    let entry = (!body.errors.is_empty()).then(|| body.errors.swap_remove(0));
    let (entry_code, entry_detail) = entry.map_or((None, None), |entry| (entry.code, entry.detail));
    AuthError::Refused {
        status: status.as_u16(),
        code: body.error.or(entry_code).unwrap_or_else(|| "Error".to_owned()),
        message: body
            .error_description
            .or(entry_detail)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason was given").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_refusal_are_read() {
        let plain = refusal(StatusCode::UNAUTHORIZED, br#"{"error": "invalid_client"}"#);
        assert!(matches!(plain, AuthError::Refused { code, .. } if code == "invalid_client"));
        let listed = refusal(
            StatusCode::FORBIDDEN,
            br#"{"errors": [{"code": "FORBIDDEN", "detail": "no"}]}"#,
        );
        assert!(listed.to_string().contains("message: no"), "{listed}");
        let nothing = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(nothing.to_string().contains("502"));
    }
}
