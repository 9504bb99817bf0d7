//! What a client asks of its user: the query of `/v2/oauth2/authorize`.

use serde::Deserialize;
use url::{Host, Url};
use uuid::Uuid;

use super::address::at;
use super::clients::SignInClient;
use super::{PASTE_PATH, scopes};

/// The query as it comes.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Query {
    pub(super) client_id: Option<String>,
    redirect_uri: Option<String>,
    response_type: Option<String>,
    scope: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    access_type: Option<String>,
    nonce: Option<String>,
    prompt: Option<String>,
    login_hint: Option<String>,
    prefill_named_grant: Option<String>,
}

/// A request that can be put before a user.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) client: SignInClient,
    /// As the client wrote it: it must say the same when it redeems the code.
    pub(super) redirect_uri: String,
    /// The same, to be added to.
    pub(super) redirect: Url,
    pub(super) scope: String,
    pub(super) state: Option<String>,
    pub(super) challenge: String,
    /// Whether refresh tokens are wanted.
    pub(super) offline: bool,
    pub(super) nonce: Option<String>,
    /// The user's name, as far as the client knows it.
    pub(super) login_hint: Option<String>,
    /// What the client calls itself here, such as its machine's name.
    pub(super) label: Option<String>,
    /// Whether the code is shown to the user.
    pub(super) is_pasted: bool,
}

/// Why a request can't be put before a user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The user is told: the client may not be who it says, so nothing is sent to where it wants.
    Page(String),
    /// The client is told, by an error code of RFC 6749 or OpenID Connect.
    Client {
        /// Where to send it.
        to: Box<Url>,
        /// The client's own.
        state: Option<String>,
        error: &'static str,
        description: String,
    },
}

/// The client's id.
///
/// # Errors
/// [`RequestError::Page`].
pub(super) fn client_id(query: &Query) -> Result<Uuid, RequestError> {
    let text = query.client_id.as_deref().unwrap_or_default();
    Uuid::parse_str(text).map_err(|_| {
        RequestError::Page(format!(
            "The link names no client: its client_id is {text:?}, not a UUID."
        ))
    })
}

impl Request {
    /// Checks what this client asks; `base` is the address of this service.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(super) fn check(query: Query, client: SignInClient, base: &Url) -> Result<Self, RequestError> {
        let redirect_uri = query.redirect_uri.unwrap_or_default();
        let is_pasted = client.sign_in.native && redirect_uri == at(base, PASTE_PATH);
        let redirect = Url::parse(&redirect_uri)
            .ok()
            .filter(|url| {
                is_pasted
                    || client.sign_in.redirect_uris.contains(&redirect_uri)
                    || (client.sign_in.native && is_loopback(url))
            })
            .filter(|url| url.fragment().is_none())
            .ok_or_else(|| {
                RequestError::Page(format!(
                    "The link asks for the code to be sent to {redirect_uri:?}, which is not registered for {}.",
                    client.name
                ))
            })?;
        let state = query.state;
        let refuse = |error, description: &str| RequestError::Client {
            to: Box::new(redirect.clone()),
            state: state.clone(),
            error,
            description: description.to_owned(),
        };
        if query.response_type.as_deref() != Some("code") {
            return Err(refuse(
                "unsupported_response_type",
                "response_type must be code: no other flow is offered here",
            ));
        }
        let scope = query.scope.unwrap_or_default();
        scopes::by_server(&scope).map_err(|error| refuse("invalid_scope", &error.to_string()))?;
        if query.code_challenge_method.as_deref() != Some("S256") {
            return Err(refuse(
                "invalid_request",
                "PKCE is needed: code_challenge_method must be S256",
            ));
        }
        let challenge = query
            .code_challenge
            .filter(|text| {
                text.len() == 43
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            })
            .ok_or_else(|| {
                refuse(
                    "invalid_request",
                    "code_challenge must be a SHA-256 in base64url, 43 characters",
                )
            })?;
        if query
            .prompt
            .as_deref()
            .is_some_and(|prompt| scopes::names(prompt, "none"))
        {
            return Err(refuse("login_required", "the user has to sign in"));
        }
        Ok(Self {
            offline: query.access_type.as_deref() == Some("offline") || scopes::names(&scope, "offline_access"),
            nonce: query.nonce,
            login_hint: query.login_hint,
            label: query.prefill_named_grant.filter(|label| !label.trim().is_empty()),
            client,
            redirect_uri,
            redirect,
            scope,
            state,
            challenge,
            is_pasted,
        })
    }
}

/// Whether a native client itself can listen there, on any port (RFC 8252, section 7.3).
fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
        && url.username().is_empty()
        && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SignIn;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn client(native: bool, redirect_uris: &[&str]) -> SignInClient {
        SignInClient {
            id: Uuid::from_u128(1),
            name: "a client".to_owned(),
            sign_in: SignIn {
                native,
                redirect_uris: redirect_uris.iter().map(|uri| (*uri).to_owned()).collect(),
            },
        }
    }

    fn query(redirect_uri: &str) -> Query {
        Query {
            redirect_uri: Some(redirect_uri.to_owned()),
            response_type: Some("code".to_owned()),
            scope: Some("openid".to_owned()),
            state: Some("s".to_owned()),
            code_challenge: Some(CHALLENGE.to_owned()),
            code_challenge_method: Some("S256".to_owned()),
            ..Query::default()
        }
    }

    fn check(query: Query, client: SignInClient) -> Result<Request, RequestError> {
        Request::check(query, client, &Url::parse("https://compute.example.org/a/").unwrap())
    }

    #[test]
    fn codes_go_to_what_is_registered_to_a_native_clients_own_machine_and_to_its_users_eyes() {
        let native = || client(true, &["https://known.example/callback"]);
        for good in [
            "https://compute.example.org/a/v2/web/auth-code",
            "https://known.example/callback",
            "http://127.0.0.1:4711/callback",
            "http://[::1]:80/",
            "http://localhost:5/x?y=z",
        ] {
            assert!(check(query(good), native()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://compute.example.org/v2/web/auth-code",
            "https://evil.example/a/v2/web/auth-code",
            "https://known.example/callback/",
            "https://known.example/callback#x",
            "https://127.0.0.1/",
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "javascript:alert(1)",
        ] {
            assert!(
                matches!(check(query(bad), native()), Err(RequestError::Page(_))),
                "{bad}"
            );
        }
        let confidential = || client(false, &["https://known.example/callback"]);
        assert!(check(query("https://known.example/callback"), confidential()).is_ok());
        for bad in [
            "http://127.0.0.1:4711/",
            "https://compute.example.org/a/v2/web/auth-code",
        ] {
            assert!(matches!(check(query(bad), confidential()), Err(RequestError::Page(_))));
        }
    }

    #[test]
    fn the_client_is_told_what_is_wrong_with_its_request() {
        let good = || query("http://127.0.0.1:4711/");
        let some = |text: &str| Some(text.to_owned());
        for (wrong, code) in [
            (
                Query {
                    response_type: some("token"),
                    ..good()
                },
                "unsupported_response_type",
            ),
            (
                Query {
                    scope: some("other"),
                    ..good()
                },
                "invalid_scope",
            ),
            (Query { scope: None, ..good() }, "invalid_scope"),
            (
                Query {
                    code_challenge: None,
                    ..good()
                },
                "invalid_request",
            ),
            (
                Query {
                    code_challenge: some("short"),
                    ..good()
                },
                "invalid_request",
            ),
            (
                Query {
                    code_challenge_method: some("plain"),
                    ..good()
                },
                "invalid_request",
            ),
            (
                Query {
                    code_challenge_method: None,
                    ..good()
                },
                "invalid_request",
            ),
            (
                Query {
                    prompt: some("none"),
                    ..good()
                },
                "login_required",
            ),
        ] {
            let Err(RequestError::Client { error, state, .. }) = check(wrong, client(true, &[])) else {
                panic!("{code} was taken")
            };
            assert_eq!((error, state.as_deref()), (code, Some("s")));
        }
        let online = check(good(), client(true, &[])).unwrap();
        let offline = check(
            Query {
                access_type: some("offline"),
                ..good()
            },
            client(true, &[]),
        )
        .unwrap();
        assert_eq!((online.offline, offline.offline), (false, true));
    }
}
