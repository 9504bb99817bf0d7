//! The page on which a user signs in and allows a client to act for them, and the page that shows the code.
//!
//! One page does both, so there is no session: each client's request asks for the password. The form can be sent by no
//! other site, for it holds what only this service can make of a cookie that only this browser has.

use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::header::{
    CACHE_CONTROL, COOKIE, HeaderMap, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use url::Url;
use uuid::Uuid;

use super::clients::sign_in_client;
use super::pages::SignInPage;
use super::request::{self, Request, RequestError};
use super::sign_in::{Attempt, attempt};
use super::{address, pages, scopes};
use crate::app::App;
use crate::clock;
use crate::error::ApiError;
use crate::secrets::{digest, new_secret};
use crate::store::{AuthorizationCode, User};

/// So long a code can be redeemed.
const CODE_LIFE: Duration = Duration::from_secs(600);
/// The cookie that the form is bound to.
const COOKIE_NAME: &str = "waypost_sign_in";
const ASK_AGAIN: &str = "Go back to the program that sent you here, and let it make a new link.";

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct SignInForm {
    #[serde(default)]
    form: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: SecretString,
    #[serde(default)]
    answer: String,
}

type MaybeQuery = Result<Query<request::Query>, QueryRejection>;

/// A request as it came, checked.
struct Checked {
    request: Request,
    base: Url,
}

async fn check(app: &App, query: MaybeQuery, headers: &HeaderMap, uri: &Uri) -> Result<Checked, Response> {
    let wrong = |error: RequestError| match error {
        RequestError::Page(message) => {
            pages::message(StatusCode::BAD_REQUEST, "This link does not work", &message, ASK_AGAIN)
        }
        RequestError::Client {
            to,
            state,
            error,
            description,
        } => send_back(
            *to,
            &[("error", error), ("error_description", &description)],
            state.as_deref(),
        ),
    };
    let Query(query) = query.map_err(|error| wrong(RequestError::Page(error.body_text())))?;
    let id = request::client_id(&query).map_err(wrong)?;
    let base = address::base(&app.settings, headers, uri).ok_or_else(|| {
        wrong(RequestError::Page(
            "The call does not say which address it is made to.".to_owned(),
        ))
    })?;
    let client = sign_in_client(app, id)
        .await
        .map_err(|error| unavailable(ApiError::from(error)))?
        .ok_or_else(|| {
            wrong(RequestError::Page(format!(
                "There is no client {id} that users can sign in for."
            )))
        })?;
    let request = Request::check(query, client, &base).map_err(wrong)?;
    Ok(Checked { request, base })
}

/// Sends the browser to the client with an answer.
fn send_back(mut to: Url, answer: &[(&str, &str)], state: Option<&str>) -> Response {
    {
        let mut pairs = to.query_pairs_mut();
        pairs.extend_pairs(answer);
        if let Some(state) = state {
            pairs.append_pair("state", state);
        }
    }
    let location = HeaderValue::from_str(to.as_str()).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (
        StatusCode::SEE_OTHER,
        [
            (LOCATION, location),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ],
    )
        .into_response()
}

fn unavailable(error: ApiError) -> Response {
    let status = error.into_response().status();
    pages::message(
        status,
        "Not now",
        "The service can't do this at the moment.",
        "Try again in a minute.",
    )
}

/// The browser's cookie, if it has one that this service could have made.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE_NAME && value.len() == 43)
        .map(|(_, value)| value)
}

/// The sign-in page, with the cookie that its form is bound to.
fn sign_in_page(
    app: &App,
    headers: &HeaderMap,
    checked: &Checked,
    status: StatusCode,
    problem: Option<String>,
    name: Option<&str>,
) -> Response {
    let request = &checked.request;
    let (secret, is_new) = match cookie(headers) {
        Some(value) => (SecretString::from(value), false),
        None => match new_secret() {
            Ok(secret) => (secret, true),
            Err(error) => {
                tracing::error!(%error, "no sign-in page could be made");
                return unavailable(ApiError::unavailable("no random numbers"));
            }
        },
    };
    let mut response = pages::sign_in(
        status,
        SignInPage {
            client: &request.client.name,
            label: request.label.as_deref(),
            permissions: scopes::in_words(&request.scope),
            problem,
            name: name.or(request.login_hint.as_deref()).unwrap_or_default(),
            form: app.form_key.authenticate(secret.expose_secret()),
            destination: (!request.is_pasted).then_some(&request.redirect),
        },
    );
    if is_new {
        let secure = if checked.base.scheme() == "https" {
            "; Secure"
        } else {
            ""
        };
        let value = format!(
            "{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
            secret.expose_secret()
        );
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            response.headers_mut().insert(SET_COOKIE, value);
        }
    }
    response
}

/// `GET /v2/oauth2/authorize`: the page.
pub(super) async fn show(State(app): State<Arc<App>>, query: MaybeQuery, headers: HeaderMap, uri: Uri) -> Response {
    match check(&app, query, &headers, &uri).await {
        Ok(checked) => sign_in_page(&app, &headers, &checked, StatusCode::OK, None, None),
        Err(response) => response,
    }
}

/// `POST /v2/oauth2/authorize`: what the user has answered.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    query: MaybeQuery,
    headers: HeaderMap,
    uri: Uri,
    form: Result<Form<SignInForm>, FormRejection>,
) -> Response {
    let checked = match check(&app, query, &headers, &uri).await {
        Ok(checked) => checked,
        Err(response) => return response,
    };
    let again = |status, problem: String, name: Option<&str>| {
        sign_in_page(&app, &headers, &checked, status, Some(problem), name)
    };
    let Ok(Form(form)) = form else {
        return again(
            StatusCode::BAD_REQUEST,
            "The form came incomplete. Try again.".to_owned(),
            None,
        );
    };
    let is_ours = cookie(&headers).is_some_and(|value| {
        let expected = app.form_key.authenticate(value);
        expected.as_bytes().ct_eq(form.form.as_bytes()).into()
    });
    if !is_ours {
        let problem = "This page was out of date, or your browser keeps no cookies. Try again.".to_owned();
        return again(StatusCode::FORBIDDEN, problem, Some(&form.name));
    }
    let request = &checked.request;
    if form.answer == "deny" {
        let denied = [
            ("error", "access_denied"),
            ("error_description", "the user did not allow it"),
        ];
        return send_back(request.redirect.clone(), &denied, request.state.as_deref());
    }
    let user = match attempt(&app, &form.name, form.password).await {
        Ok(Attempt::SignedIn(user)) => user,
        Ok(Attempt::Wrong) => {
            tracing::info!(client_id = %request.client.id, "a sign-in failed: wrong name or password");
            let problem = "The name or the password is wrong.".to_owned();
            return again(StatusCode::FORBIDDEN, problem, Some(&form.name));
        }
        Ok(Attempt::TooEarly(seconds)) => {
            let problem = format!("There were too many wrong attempts. Try again in {seconds} s.");
            let mut response = again(StatusCode::TOO_MANY_REQUESTS, problem, Some(&form.name));
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return response;
        }
        Err(error) => return unavailable(ApiError::from(error)),
    };
    match make_code(&app, request, &user).await {
        Ok(code) => {
            tracing::info!(user_id = %user.id, client_id = %request.client.id, "a user has signed in");
            let answer = [("code", code.expose_secret())];
            send_back(request.redirect.clone(), &answer, request.state.as_deref())
        }
        Err(error) => unavailable(error),
    }
}

async fn make_code(app: &App, request: &Request, user: &User) -> Result<SecretString, ApiError> {
    let code = new_secret().map_err(|error| {
        tracing::error!(%error, "no code could be made");
        ApiError::unavailable("no code can be made at the moment; try again")
    })?;
    let now = clock::now();
    app.store
        .insert_code(&AuthorizationCode {
            digest: digest(code.expose_secret()),
            grant_id: Uuid::new_v4(),
            user_id: user.id,
            client_id: request.client.id,
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            scope: request.scope.clone(),
            nonce: request.nonce.clone(),
            offline: request.offline,
            signed_in_at: now,
            expires_at: now.saturating_add(clock::milliseconds(CODE_LIFE)),
            used_at: None,
        })
        .await?;
    Ok(code)
}

/// What the page that shows a code is called with.
#[derive(Deserialize)]
pub(super) struct CodeQuery {
    code: Option<String>,
    error_description: Option<String>,
}

/// `GET /v2/web/auth-code`: the page that shows the code.
pub(super) async fn show_code(query: Result<Query<CodeQuery>, QueryRejection>) -> Response {
    let Ok(Query(query)) = query else {
        return no_code("The link is not one of this service.");
    };
    match query {
        // Nothing else is shown: a link from elsewhere could make this page say anything.
        CodeQuery { code: Some(code), .. } if is_code(&code) => pages::code(&code, CODE_LIFE.as_secs() / 60),
        CodeQuery {
            error_description: Some(_),
            ..
        } => no_code("You were not signed in."),
        CodeQuery { .. } => no_code("The link is not one of this service."),
    }
}

fn is_code(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn no_code(message: &str) -> Response {
    pages::message(StatusCode::BAD_REQUEST, "There is no code", message, ASK_AGAIN)
}
