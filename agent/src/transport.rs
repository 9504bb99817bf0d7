//! HTTP calls that are tried again where that is of use, by the rules of the Globus SDK.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use rustls::CertificateError;

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
    /// `WAYPOST_CA_BUNDLE` names a file that is not there.
    #[error("WAYPOST_CA_BUNDLE must be a file with certificates in PEM form, and {path} can not be read: {reason}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
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
    let mut own = Vec::new();
    if let Some((path, pem)) = own_certificates(&variable)? {
        own = certificates(path, pem.as_bytes())?;
    }
    let mut trust = Trust::System(own.clone());
    if let Some(verify) = variable("GLOBUS_SDK_VERIFY_SSL") {
        match verify.to_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => {}
            "n" | "no" | "f" | "false" | "off" | "0" => {
                tracing::warn!("GLOBUS_SDK_VERIFY_SSL is off: the service's certificate is not checked");
                trust = Trust::Anybody;
            }
            _ => {
                let path = PathBuf::from(&verify);
                let pem = std::fs::read(&path).map_err(|_| ClientError::Verify(verify))?;
                own.extend(certificates(path, &pem)?);
                trust = Trust::System(own);
            }
        }
    }
    match build(&trust) {
        Err(error) if matches!(&trust, Trust::System(own) if own.is_empty()) => {
            // An image may have none: plain http needs none, and where https is spoken each call says what is wrong.
            let client = build(&Trust::Nobody).map_err(|_| ClientError::Setup(describe(&error)))?;
            tracing::warn!(
                error = describe(&error),
                "this machine's root certificates can not be used: no https address will be trusted; install \
                 ca-certificates, or set GLOBUS_SDK_VERIFY_SSL to a file of certificates"
            );
            Ok(client)
        }
        built => built.map_err(|error| ClientError::Setup(describe(&error))),
    }
}

/// The certificates in `WAYPOST_CA_BUNDLE`, in PEM form, and where they are: they are believed beside those of the
/// machine, by HTTPS and by AMQPS.
///
/// # Errors
/// [`ClientError::Bundle`] if the file can not be read.
pub fn own_certificates(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(PathBuf, String)>, ClientError> {
    let Some(path) = variable("WAYPOST_CA_BUNDLE").filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    match std::fs::read_to_string(&path) {
        Ok(pem) => Ok(Some((path, pem))),
        Err(error) => Err(ClientError::Bundle {
            path,
            reason: error.to_string(),
        }),
    }
}

fn certificates(path: PathBuf, pem: &[u8]) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let refused = |reason: String| ClientError::Certificates {
        path: path.clone(),
        reason,
    };
    match reqwest::Certificate::from_pem_bundle(pem) {
        Ok(found) if found.is_empty() => Err(refused("there is none in PEM form".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Whose certificates are taken.
enum Trust {
    /// Those of this machine's authorities, and of these.
    System(Vec<reqwest::Certificate>),
    /// Every one.
    Anybody,
    /// None.
    Nobody,
}

fn build(trust: &Trust) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .user_agent(concat!("waypost-endpoint/", env!("CARGO_PKG_VERSION")))
        .timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(20));
    match trust {
        Trust::System(own) => builder.tls_certs_merge(own.iter().cloned()),
        Trust::Anybody => builder.tls_danger_accept_invalid_certs(true),
        Trust::Nobody => builder.tls_certs_only([]),
    }
    .build()
}

/// Why a call brought no answer of the service's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The network, or what a certificate says.
    #[error("{}", describe(.0))]
    Http(#[from] reqwest::Error),
    /// A proxy wants a name and a password, or other ones (407).
    #[error("{0}")]
    Proxy(String),
}

/// Sends a request; a network error or an answer of 429, 500, 502, 503 or 504 is tried again after
/// (0.25 to 0.75) x 2^n seconds, or after as long as the answer's `Retry-After` says. A certificate that is not believed
/// will not be in ten seconds, either, nor will a proxy that refuses the password that it is given: both are tried once.
///
/// # Errors
/// The last network error, or what a proxy wants. An answer of any other status is no error here.
pub(crate) async fn send(make: impl Fn() -> RequestBuilder) -> Result<Response, SendError> {
    let mut attempt = 0;
    loop {
        let outcome = make().send().await;
        let refused_by_proxy = match &outcome {
            Ok(response) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Some(response.url().clone())
            }
            Err(error) if is_refused_by_proxy(error) => error.url().cloned(),
            Ok(_) | Err(_) => None,
        };
        if let Some(url) = refused_by_proxy {
            return Err(SendError::Proxy(refusal_of_proxy(&url, |name| {
                std::env::var(name).ok()
            })));
        }
        let outcome = outcome.map_err(SendError::Http);
        let wait = match &outcome {
            Ok(response) if is_passing(response.status()) => {
                retry_after(response).unwrap_or_else(|| back_off(attempt, rand::random::<f64>()))
            }
            Ok(_) => return outcome,
            Err(SendError::Http(error)) if error.is_builder() || certificate_fault(error).is_some() => return outcome,
            Err(_) => back_off(attempt, rand::random::<f64>()),
        };
        if attempt == RETRIES {
            return outcome;
        }
        match &outcome {
            Ok(response) => tracing::debug!(status = %response.status(), ?wait, "the call is tried again"),
            Err(error) => tracing::debug!(%error, ?wait, "the call is tried again"),
        }
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

/// Whether a proxy would not make a tunnel for want of a name and a password. Its error has no type that could be asked.
fn is_refused_by_proxy(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.to_string() == "tunnel error: proxy authorization required" {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What is said of a proxy that answers 407 to a call of `url`. Which one that is, the HTTP client knows from the same
/// variables, in this order.
fn refusal_of_proxy(url: &Url, variable: impl Fn(&str) -> Option<String>) -> String {
    let own = if url.scheme() == "https" {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let first = |names: [&'static str; 2]| {
        let set = names.into_iter().find_map(|name| Some((name, variable(name)?)));
        set.filter(|(_, value)| !value.is_empty())
    };
    let Some((name, value)) = first(own).or_else(|| first(["ALL_PROXY", "all_proxy"])) else {
        return "a proxy on the way wants a name and a password (407)".to_owned();
    };
    let whole = if value.contains("://") {
        value
    } else {
        format!("http://{value}")
    };
    let Ok(mut proxy) = Url::parse(&whole) else {
        return format!("the proxy that {name} names wants another name or password (407)");
    };
    let named = !proxy.username().is_empty();
    // What has no host has no name and password, either.
    let _ = proxy.set_username("");
    let _ = proxy.set_password(None);
    let proxy = proxy.as_str().trim_end_matches('/');
    if named {
        format!("the proxy {proxy} does not take the name and password that {name} gives it (407): correct them there")
    } else {
        format!(
            "the proxy {proxy} wants a name and a password (407): give them in {name}, as http://NAME:PASSWORD@HOST:PORT"
        )
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

/// An error of the HTTP client with its causes, without the address's query, and with what helps.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    with_advice(text, error)
}

/// What is said of an error and, if certificates are the reason that a file of them may mend, what to do.
pub(crate) fn with_advice(said: String, error: &(dyn Error + 'static)) -> String {
    match tls_fault(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => format!(
            "{said}. The authority that signed the certificate is not believed: if it is your own, name a PEM file with \
             its certificate by WAYPOST_CA_BUNDLE"
        ),
        Some(rustls::Error::General(why)) if why.starts_with("No CA certificates") => format!(
            "{said}. This machine has no root certificates that could be read: install ca-certificates, or name a PEM \
             file with those of the services by WAYPOST_CA_BUNDLE"
        ),
        Some(_) | None => said,
    }
}

/// What is wrong with the certificate that was shown, if that is the reason for an error.
fn certificate_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    match tls_fault(error) {
        Some(rustls::Error::InvalidCertificate(fault)) => Some(fault),
        Some(_) | None => None,
    }
}

/// What TLS says, if it is the reason for an error.
fn tls_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(fault) = current.downcast_ref() {
            return Some(fault);
        }
        // The source of such an error is that of the error that it holds, and so leaves that one out.
        let held = current
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => current.source(),
        };
    }
    None
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
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none.pem");
        std::fs::write(&none, "no certificate").unwrap();
        for variable in ["GLOBUS_SDK_VERIFY_SSL", "WAYPOST_CA_BUNDLE"] {
            let error = client(|name| (name == variable).then(|| "/no/such/file".to_owned())).unwrap_err();
            assert!(error.to_string().contains(variable), "{error}");
            let error = client(|name| (name == variable).then(|| none.display().to_string())).unwrap_err();
            assert!(error.to_string().contains("none.pem"), "{error}");
        }
    }

    #[test]
    fn only_an_authority_that_is_not_believed_calls_for_a_bundle() {
        let shown = |fault| {
            let held = std::io::Error::other(rustls::Error::InvalidCertificate(fault));
            let error = std::io::Error::other(held);
            assert!(certificate_fault(&error).is_some());
            with_advice("refused".to_owned(), &error)
        };
        let advised = shown(CertificateError::UnknownIssuer);
        assert!(
            advised.starts_with("refused. ") && advised.contains("WAYPOST_CA_BUNDLE"),
            "{advised}"
        );
        assert_eq!(shown(CertificateError::Expired), "refused");
        assert!(certificate_fault(&std::io::Error::other("no route")).is_none());
    }

    #[test]
    fn a_machine_without_root_certificates_is_told_what_helps() {
        let fault = rustls::Error::General("No CA certificates were loaded from the system".to_owned());
        let advised = with_advice("refused".to_owned(), &std::io::Error::other(fault));
        assert!(
            advised.contains("ca-certificates") && advised.contains("WAYPOST_CA_BUNDLE"),
            "{advised}"
        );
    }

    #[test]
    fn a_proxy_that_wants_a_password_is_named_with_its_variable_and_without_the_password() {
        let said = |url: &str, variables: &[(&str, &str)]| {
            refusal_of_proxy(&url.parse().unwrap(), |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let (outside, inside) = ("https://compute.example/v3", "http://127.0.0.1:8080/");
        let wrong = ("https_proxy", "http://me:hidden@proxy.example:3128/");
        let text = said(outside, &[wrong, ("HTTP_PROXY", "http://other:1")]);
        assert!(
            text.starts_with("the proxy http://proxy.example:3128 does not take"),
            "{text}"
        );
        assert!(
            text.contains("https_proxy") && !text.contains("hidden") && !text.contains("me@"),
            "{text}"
        );
        let text = said(inside, &[wrong, ("ALL_PROXY", "proxy.example:80")]);
        assert!(
            text.contains("proxy.example") && text.contains("give them in ALL_PROXY"),
            "{text}"
        );
        // The client takes the first that is set, and looks at no other of the pair if that is empty.
        let text = said(
            outside,
            &[("HTTPS_PROXY", ""), wrong, ("all_proxy", "http://a b:hidden@")],
        );
        assert!(text.contains("all_proxy") && !text.contains("hidden"), "{text}");
        assert!(said(outside, &[]).contains("407"));
    }

    /// Where rustls looks for root certificates instead of where the system has them.
    const ROOTS: &str = "SSL_CERT_FILE";

    #[tokio::test]
    async fn without_root_certificates_plain_http_works() {
        let nowhere = "/no/such/file/of/certificates";
        if std::env::var_os(ROOTS).as_deref() != Some(nowhere.as_ref()) {
            // What a process finds in its environment is the same for all tests in it: this one has its own.
            let name = "transport::tests::without_root_certificates_plain_http_works";
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(ROOTS, nowhere)
                .env("SSL_CERT_DIR", nowhere)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(
            build(&Trust::System(Vec::new())).is_err(),
            "there are root certificates"
        );
        let client = client(|_| None).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = axum::Router::new().route("/", axum::routing::get(async || "so it is"));
        tokio::spawn(async move { axum::serve(listener, answer).await });
        let text = client.get(format!("http://{address}/")).send().await.unwrap();
        assert_eq!(text.text().await.unwrap(), "so it is");
    }
}
