//! `interchange check`: a client's way through an interchange that runs, from its credentials to its result queue.

use std::io::Write as _;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::auth::COMPUTE_SCOPE;
use crate::broker::{BrokerUser, Management};
use crate::cli::CheckArguments;
use crate::clock;
use crate::config::{database_of, management_of};
use crate::secrets::{hash_secret, new_secret};
use crate::store::{Client, Store};

/// How long each answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks an interchange, and prints a line for each part that does its work.
///
/// # Errors
/// Which part does not, and why.
pub(crate) async fn run(arguments: CheckArguments) -> anyhow::Result<()> {
    let management = management_of(arguments.management, &arguments.database)?;
    let service = Service::new(&arguments.url)?;
    service.is_ready().await?;
    say(&format!(
        "{} is ready: it has its database and its broker",
        arguments.url
    ))?;
    let store = Store::open(database_of(arguments.database)?.expose_secret()).await?;
    let secret = new_secret()?;
    let client = Client {
        id: Uuid::new_v4(),
        name: "interchange check".to_owned(),
        secret_hash: hash_secret(&secret)?,
        created_at: clock::now(),
        revoked_at: None,
        rotation: 0,
        broker_user_at: 0,
    };
    store.create_client(&client).await?;
    let walked = walk(&service, client.id, &secret).await;
    // Whatever was found, nothing is to be left.
    let forgotten = forget(&store, management, client.id).await;
    walked?;
    forgotten.context("the client that was made for the check is revoked, and still there")
}

/// Everything that a client does before it has an endpoint.
async fn walk(service: &Service, id: Uuid, secret: &SecretString) -> anyhow::Result<()> {
    let token = service.log_in(id, secret).await.context("a client can't log in")?;
    say("a client can log in")?;
    service.keep_a_function(&token).await?;
    say("functions are kept")?;
    let address = service.result_queue_address(&token).await?;
    connect(&address).await?;
    say("a client can connect to the broker")
}

fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{what}")?)
}

/// Removes the client with all that it was given. Without the broker's management, a running interchange does the rest in
/// its next round of cleaning up.
async fn forget(store: &Store, management: Option<Url>, id: Uuid) -> anyhow::Result<()> {
    store.revoke_client(id, clock::now()).await?;
    if let Some(url) = management {
        // Users belong to no virtual host.
        Management::new(&url, "/")?.delete_user(&BrokerUser::Client(id)).await?;
        store.forget_client(id).await?;
    }
    Ok(())
}

/// Connects to the broker as the interchange tells its clients to.
async fn connect(address: &SecretString) -> anyhow::Result<()> {
    let uri = AMQPUri::from_str(address.expose_secret())
        .ok()
        .context("the address of the broker that clients are given is not understood: set --broker-public-url")?;
    let place = format!("{}:{}", uri.authority.host, uri.authority.port);
    let connecting = Connection::connect_uri(uri, ConnectionProperties::default());
    let advice = || {
        format!(
            "a client can't connect to the broker at {place}, which is where clients are sent: set --broker-public-url to an address that they reach"
        )
    };
    let connection = tokio::time::timeout(PATIENCE, connecting)
        .await
        .with_context(advice)?
        .with_context(advice)?;
    connection.close(200, "checked".into()).await?;
    Ok(())
}

/// An interchange, as its clients call it.
struct Service {
    http: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
struct Token {
    access_token: SecretString,
}

#[derive(Deserialize)]
struct Registered {
    function_uuid: Uuid,
}

#[derive(Deserialize)]
struct ResultQueue {
    connection_url: SecretString,
}

impl Service {
    fn new(url: &Url) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// The answer of a call that must succeed.
    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = request
            .send()
            .await
            .with_context(|| format!("there is no answer from {}", self.base))?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status == StatusCode::OK, "{status}: {text}");
        serde_json::from_str(&text)
            .context("the answer is not what an interchange says: another service has the address")
    }

    async fn is_ready(&self) -> anyhow::Result<()> {
        // Its answer says which of them it misses.
        let _: Value = self
            .answer(self.request(Method::GET, "/readyz"))
            .await
            .context("the interchange is not ready")?;
        Ok(())
    }

    async fn log_in(&self, id: Uuid, secret: &SecretString) -> anyhow::Result<SecretString> {
        let request = self
            .request(Method::POST, "/v2/oauth2/token")
            .basic_auth(id, Some(secret.expose_secret()))
            .form(&[("grant_type", "client_credentials"), ("scope", COMPUTE_SCOPE)]);
        let token: Token = self.answer(request).await?;
        Ok(token.access_token)
    }

    async fn keep_a_function(&self, token: &SecretString) -> anyhow::Result<()> {
        let ask = |method, path: &str| self.request(method, path).bearer_auth(token.expose_secret());
        let body = json!({"function_name": "check", "function_code": "def check(): pass"});
        let registered: Registered = self
            .answer(ask(Method::POST, "/v3/functions").json(&body))
            .await
            .context("a function can't be registered")?;
        let path = format!("/v2/functions/{}", registered.function_uuid);
        let read: Value = self
            .answer(ask(Method::GET, &path))
            .await
            .context("a function that was registered can't be read")?;
        if read["function_code"] != body["function_code"] {
            bail!("a function is not read as it was registered");
        }
        let _: Value = self
            .answer(ask(Method::DELETE, &path))
            .await
            .context("a function can't be deleted")?;
        Ok(())
    }

    async fn result_queue_address(&self, token: &SecretString) -> anyhow::Result<SecretString> {
        let request = self
            .request(Method::GET, "/v2/get_amqp_result_connection_url")
            .bearer_auth(token.expose_secret());
        let queue: ResultQueue = self
            .answer(request)
            .await
            .context("a client is given no user of the broker")?;
        Ok(queue.connection_url)
    }
}
