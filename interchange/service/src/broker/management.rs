//! RabbitMQ's management HTTP API: users and their permissions, which AMQP itself can't make.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::names::{BrokerUser, HEARTBEATS, NOTHING, RESULTS};
use crate::config::percent_decode;

/// Why the broker's management did not do what it was asked. No variant holds a URL, for that has a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagementError {
    /// The HTTP client could not be made.
    #[error("the HTTP client for the broker's management could not be made: {0}")]
    Client(reqwest::Error),
    /// There was no answer.
    #[error("the broker's management could not be reached for {what}: {source}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Why there was none.
        source: reqwest::Error,
    },
    /// The answer was a refusal.
    #[error("the broker's management refused {what} with status {status}: {text}")]
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// The answer's body.
        text: String,
    },
}

/// A client of the management API.
pub(crate) struct Management {
    http: reqwest::Client,
    base: Url,
    user: String,
    password: SecretString,
    vhost: String,
}

impl Management {
    /// A client for the API at `url` (`http://user:password@host:port`), for one virtual host.
    ///
    /// # Errors
    /// [`ManagementError::Client`] if no HTTP client can be made.
    pub(crate) fn new(url: &Url, vhost: &str) -> Result<Self, ManagementError> {
        let mut base = url.clone();
        let decode = |text: &str| percent_decode(text);
        let user = decode(url.username());
        let password = SecretString::from(decode(url.password().unwrap_or_default()));
        // An http URL has a host, so its credentials can be taken out.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .no_proxy()
            .build()
            .map_err(ManagementError::Client)?;
        Ok(Self {
            http,
            base,
            user,
            password,
            vhost: vhost.to_owned(),
        })
    }

    /// Makes a user, or renews its password and permissions.
    ///
    /// # Errors
    /// [`ManagementError`]; some of the permissions may then be set, and none that a later call would not set.
    pub(crate) async fn put_user(&self, user: &BrokerUser, password: &SecretString) -> Result<(), ManagementError> {
        let name = user.name();
        // Topic permissions come before the permissions that let a user publish at all: an exchange without one is
        // open to any key.
        self.call(
            Method::PUT,
            &["users", &name],
            Some(json!({"password": password.expose_secret(), "tags": ""})),
        )
        .await?;
        for exchange in [RESULTS, HEARTBEATS] {
            self.call(
                Method::PUT,
                &["topic-permissions", &self.vhost, &name],
                Some(json!({"exchange": exchange, "write": user.key_pattern(exchange), "read": NOTHING})),
            )
            .await?;
        }
        self.call(
            Method::PUT,
            &["permissions", &self.vhost, &name],
            Some(json!({"configure": NOTHING, "write": user.write_pattern(), "read": user.read_pattern()})),
        )
        .await?;
        Ok(())
    }

    /// Removes a user, if it is there; the broker then closes its connections.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub(crate) async fn delete_user(&self, user: &BrokerUser) -> Result<(), ManagementError> {
        match self.call(Method::DELETE, &["users", &user.name()], None).await {
            Err(ManagementError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The names of all users.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub(crate) async fn users(&self) -> Result<Vec<String>, ManagementError> {
        let list = self.call(Method::GET, &["users"], None).await?;
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|user| user.get("name").and_then(Value::as_str).map(str::to_owned))
            .collect())
    }

    /// All queues of the virtual host; with each, how many messages it holds and consumers it has, together. The
    /// figures may be some seconds old.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub(crate) async fn queue_use(&self) -> Result<Vec<(String, u64)>, ManagementError> {
        let list = self.call(Method::GET, &["queues", &self.vhost], None).await?;
        let figure = |queue: &Value, name| queue.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok(list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|queue| {
                let name = queue.get("name").and_then(Value::as_str)?;
                Some((name.to_owned(), figure(queue, "messages") + figure(queue, "consumers")))
            })
            .collect())
    }

    /// A queue's type, such as `classic`.
    ///
    /// # Errors
    /// [`ManagementError`]: it is not there, among others.
    pub(crate) async fn queue_type(&self, name: &str) -> Result<String, ManagementError> {
        let queue = self.call(Method::GET, &["queues", &self.vhost, name], None).await?;
        Ok(queue.get("type").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The type that queues of the virtual host have if none is asked for, where one is set.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub(crate) async fn default_queue_type(&self) -> Result<Option<String>, ManagementError> {
        let vhost = self.call(Method::GET, &["vhosts", &self.vhost], None).await?;
        Ok(vhost
            .get("default_queue_type")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }

    /// The broker's version, such as `3.10.8`.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub(crate) async fn version(&self) -> Result<String, ManagementError> {
        let overview = self.call(Method::GET, &["overview"], None).await?;
        Ok(overview
            .get("rabbitmq_version")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Value, ManagementError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        let what = format!("{method} {}", path.join("/"));
        let mut request = self
            .http
            .request(method, url)
            .basic_auth(&self.user, Some(self.password.expose_secret()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let unreachable = |source: reqwest::Error| ManagementError::Unreachable {
            what: what.clone(),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(ManagementError::Refused { what, status, text });
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
