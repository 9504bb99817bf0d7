//! Calls to Globus Auth, or to what takes its place.

use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use super::credentials::ClientCredentials;
use super::error::AuthError;
use super::token_data::{TokenData, now};
use crate::transport;

/// Globus Auth at one address.
#[derive(Debug, Clone)]
pub(super) struct AuthApi {
    client: Client,
    base: Url,
}

/// The identities of the one who logged in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identities {
    /// The identity that was used.
    pub sub: Uuid,
    /// All identities linked with it, itself included; absent if the login does not allow to see them.
    #[serde(default)]
    pub identity_set: Option<Vec<Linked>>,
}

/// One identity, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Linked {
    /// Its id.
    pub sub: Uuid,
}

/// One identity, as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// Its id.
    pub id: Uuid,
    /// The name to log in with.
    #[serde(default)]
    pub username: Option<String>,
    /// The person's name.
    #[serde(default)]
    pub name: Option<String>,
    /// An address to write to.
    #[serde(default)]
    pub email: Option<String>,
}

/// Tokens that were granted.
pub(super) struct Granted {
    pub(super) tokens: Vec<TokenData>,
    /// Who logged in, as a signed statement (a JWT).
    pub(super) id_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Grant {
    access_token: SecretString,
    resource_server: String,
    expires_in: u64,
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct Grants {
    #[serde(flatten)]
    first: Grant,
    #[serde(default)]
    id_token: Option<SecretString>,
    #[serde(default)]
    other_tokens: Vec<Grant>,
}

impl From<Grant> for TokenData {
    fn from(grant: Grant) -> Self {
        Self {
            resource_server: grant.resource_server,
            identity_id: None,
            scope: grant.scope,
            access_token: grant.access_token,
            refresh_token: grant.refresh_token,
            expires_at_seconds: now() + grant.expires_in,
            token_type: grant.token_type,
            others: serde_json::Map::new(),
        }
    }
}

impl AuthApi {
    pub(super) const fn new(client: Client, base: Url) -> Self {
        Self { client, base }
    }

    /// Tokens for a confidential client.
    pub(super) async fn client_grant(
        &self,
        credentials: &ClientCredentials,
        scopes: &[&str],
    ) -> Result<Granted, AuthError> {
        let scope = scopes.join(" ");
        let form = [("grant_type", "client_credentials"), ("scope", scope.as_str())];
        self.granted(|request| {
            request
                .basic_auth(&credentials.id, Some(credentials.secret.expose_secret()))
                .form(&form)
        })
        .await
    }

    /// A new token for what the refresh token is good for.
    pub(super) async fn refresh(&self, client_id: &str, refresh_token: &SecretString) -> Result<Granted, AuthError> {
        let form = [
            ("refresh_token", refresh_token.expose_secret()),
            ("grant_type", "refresh_token"),
            ("client_id", client_id),
        ];
        self.granted(|request| request.form(&form)).await
    }

    /// The tokens of a login, for the code that it ended with.
    pub(super) async fn exchange(
        &self,
        client_id: &str,
        code: &str,
        verifier: &SecretString,
        redirect_uri: &str,
    ) -> Result<Granted, AuthError> {
        let form = [
            ("client_id", client_id),
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier.expose_secret()),
            ("redirect_uri", redirect_uri),
        ];
        self.granted(|request| request.form(&form)).await
    }

    /// Makes a token useless: in the name of a confidential client, or of the native one with this id.
    pub(super) async fn revoke(
        &self,
        client: Result<&ClientCredentials, &str>,
        token: &SecretString,
    ) -> Result<(), AuthError> {
        let url = self.url("v2/oauth2/token/revoke");
        let request = || {
            let request = self.client.post(url.clone());
            let token = ("token", token.expose_secret());
            match client {
                Ok(credentials) => request
                    .basic_auth(&credentials.id, Some(credentials.secret.expose_secret()))
                    .form(&[token]),
                Err(client_id) => request.form(&[token, ("client_id", client_id)]),
            }
        };
        let answer = transport::send(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        read::<serde::de::IgnoredAny>(answer, &url).await.map(drop)
    }

    /// Who the token belongs to. The outer error is that nothing came of the call.
    pub(super) async fn identities(&self, token: &SecretString) -> Result<Identities, AuthError> {
        self.get(self.url("v2/oauth2/userinfo"), Some(token)).await
    }

    /// What is known of an identity.
    pub(super) async fn profile(&self, id: Uuid, token: &SecretString) -> Result<Profile, AuthError> {
        #[derive(Deserialize)]
        struct Answer {
            identities: Vec<Profile>,
        }
        let mut url = self.url("v2/api/identities");
        url.query_pairs_mut().append_pair("ids", &id.to_string());
        let answer: Answer = self.get(url.clone(), Some(token)).await?;
        answer
            .identities
            .into_iter()
            .find(|profile| profile.id == id)
            .ok_or_else(|| AuthError::Answer {
                url: url.to_string(),
                reason: format!("it does not know the identity {id}"),
            })
    }

    /// A document of the service.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        url: Url,
        token: Option<&SecretString>,
    ) -> Result<T, AuthError> {
        let request = || {
            let request = self.client.get(url.clone());
            match token {
                Some(token) => request.bearer_auth(token.expose_secret()),
                None => request,
            }
        };
        let answer = transport::send(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        read(answer, &url).await
    }

    /// Where a path of the service is.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }

    async fn granted(&self, fill: impl Fn(RequestBuilder) -> RequestBuilder) -> Result<Granted, AuthError> {
        let url = self.url("v2/oauth2/token");
        let answer = transport::send(|| fill(self.client.post(url.clone())))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let Grants {
            first,
            id_token,
            other_tokens,
        } = read(answer, &url).await?;
        Ok(Granted {
            tokens: std::iter::once(first)
                .chain(other_tokens)
                .map(TokenData::from)
                .collect(),
            id_token,
        })
    }

    fn unreachable(&self, error: &transport::SendError) -> AuthError {
        AuthError::Unreachable {
            url: self.base.to_string(),
            reason: error.to_string(),
        }
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response, url: &Url) -> Result<T, AuthError> {
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
