//! The pages that a user sees: plain HTML, without scripts and without anything from elsewhere.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::{Html, IntoResponse as _, Response};
use minijinja::{Environment, Value, context};
use url::Url;

use crate::error::{ApiError, ErrorCode};

const STYLE: &str = include_str!("pages/style.css");

/// Templates by name; what goes into them is escaped as their names' ending says.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    for (name, text) in [
        ("base.html", include_str!("pages/base.html")),
        ("sign_in.html", include_str!("pages/sign_in.html")),
        ("code.html", include_str!("pages/code.html")),
        ("message.html", include_str!("pages/message.html")),
    ] {
        environment
            .add_template(name, text)
            .expect("the templates of this program are well formed, which a test shows");
    }
    environment
});

/// The style sheet's address from any of the pages, wherever a proxy has put this service.
const STYLE_PATH: &str = "../web/style.css";

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // The address of a page may hold a code.
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// What a page may load and where its form may lead: `destination` beside this service itself, as browsers follow the
/// answer to a form only to what is named here.
fn policy(destination: Option<&Url>) -> HeaderValue {
    let destination = match destination {
        None => String::new(),
        Some(url) if url.has_host() => format!(" {}", url.origin().ascii_serialization()),
        Some(url) => format!(" {}:", url.scheme()),
    };
    let text = format!(
        "default-src 'none'; style-src 'self'; form-action 'self'{destination}; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&text).unwrap_or(const { HeaderValue::from_static("default-src 'none'") })
}

/// A page from a template.
fn page(status: StatusCode, template: &str, values: Value, destination: Option<&Url>) -> Response {
    let rendered = TEMPLATES
        .get_template(template)
        .and_then(|template| template.render(values));
    match rendered {
        Ok(text) => {
            let mut response = (status, Html(text)).into_response();
            response.headers_mut().extend(HEADERS);
            response
                .headers_mut()
                .insert(CONTENT_SECURITY_POLICY, policy(destination));
            response
        }
        Err(error) => {
            tracing::error!(%error, template, "a page could not be made");
            ApiError::new(
                ErrorCode::InternalError,
                "the page could not be made by a fault of the service",
            )
            .into_response()
        }
    }
}

/// What the sign-in page shows.
pub(super) struct SignInPage<'request> {
    /// Who asks.
    pub(super) client: &'request str,
    /// What that calls itself here, as far as it says.
    pub(super) label: Option<&'request str>,
    /// What it wants to be allowed to do.
    pub(super) permissions: Vec<&'static str>,
    /// What was wrong with the last attempt.
    pub(super) problem: Option<String>,
    /// The name, as it was typed or is known.
    pub(super) name: &'request str,
    /// What proves that the form comes from this page.
    pub(super) form: String,
    /// Where the answer goes; None: it is shown here.
    pub(super) destination: Option<&'request Url>,
}

/// The page to sign in on.
pub(super) fn sign_in(status: StatusCode, shown: SignInPage<'_>) -> Response {
    let destination = match shown.destination {
        None => "You are then shown a code, to be pasted where you were asked for it.".to_owned(),
        Some(url) => format!(
            "You are then sent on to {}.",
            url.host_str().unwrap_or_else(|| url.scheme())
        ),
    };
    let values = context! {
        style => STYLE_PATH,
        client => shown.client,
        label => shown.label,
        permissions => shown.permissions,
        problem => shown.problem,
        name => shown.name,
        form => shown.form,
        destination => destination,
    };
    page(status, "sign_in.html", values, shown.destination)
}

/// The page that shows a code.
pub(super) fn code(code: &str, minutes: u64) -> Response {
    let values = context! { style => STYLE_PATH, code => code, minutes => minutes };
    page(StatusCode::OK, "code.html", values, None)
}

/// A page that says why there is no other.
pub(super) fn message(status: StatusCode, title: &str, message: &str, advice: &str) -> Response {
    let values = context! { style => STYLE_PATH, title => title, message => message, advice => advice };
    page(status, "message.html", values, None)
}

/// The style sheet.
pub(super) async fn style() -> Response {
    (
        [
            (CONTENT_TYPE, "text/css; charset=utf-8"),
            (CACHE_CONTROL, "max-age=3600"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        STYLE,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_a_client_says_of_itself_is_shown_as_text() {
        let url = Url::parse("http://127.0.0.1:4711/callback").unwrap();
        let response = sign_in(
            StatusCode::OK,
            SignInPage {
                client: "<b>client</b>",
                label: Some("\"><script>alert(1)</script>"),
                permissions: vec!["see"],
                problem: Some("<i>".to_owned()),
                name: "\" onfocus=\"x",
                form: "f".to_owned(),
                destination: Some(&url),
            },
        );
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("form-action 'self' http://127.0.0.1:4711;"), "{policy}");
        let shown = text(response).await;
        for raw in ["<b>", "<script>", "<i>", "\" onfocus"] {
            assert!(!shown.contains(raw), "{raw} in {shown}");
        }
        assert!(shown.contains("127.0.0.1"));
        assert!(!text(code("<b>", 10)).await.contains("<b>"));
        assert!(!text(message(StatusCode::OK, "<b>", "<b>", "<b>")).await.contains("<b>"));
    }
}
