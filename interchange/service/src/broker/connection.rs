use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event, ExchangeKind};
use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::management::Management;
use super::names::{BrokerUser, HEARTBEATS, RESULTS, endpoint_queue};
use super::publisher::Publisher;
use super::{BrokerError, at, heartbeats, results};
use crate::app::App;
use crate::cli::TaskQueueType;
use crate::config::Settings;
use crate::store::Endpoint;

/// Seconds between AMQP heartbeats: a broker that is gone without a word is noticed after twice this.
const AMQP_HEARTBEAT_SECONDS: u16 = 10;
/// The longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a close is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// A channel remembers every queue that was declared on it, so it is replaced after so many.
const DECLARATIONS_PER_CHANNEL: usize = 1_000;

/// The broker, whether it can be reached now or not.
pub(crate) struct Broker {
    uri: AMQPUri,
    management: Management,
    live: watch::Sender<Option<Arc<Live>>>,
    task_queue_type: Option<TaskQueueType>,
    result_queue_expiry: Duration,
}

/// A pair of connections: the broker stops reading from one that publishes too much, and acks should go on then.
pub(crate) struct Live {
    publishing: Connection,
    /// For tasks and commands.
    pub(crate) publisher: Publisher,
    /// For results on their way to clients.
    pub(crate) forwarder: Publisher,
    declarations: Mutex<(Channel, usize)>,
    /// Arguments of task queues.
    task_queue_arguments: FieldTable,
    result_queue_arguments: FieldTable,
}

impl Broker {
    /// A broker to which no connection is made yet.
    ///
    /// # Errors
    /// [`BrokerError`]: a URL is not understood.
    pub(crate) fn new(settings: &Settings) -> Result<Self, BrokerError> {
        let mut uri = AMQPUri::from_str(settings.broker_url.expose_secret()).map_err(|_| BrokerError::Url)?;
        uri.query.heartbeat = Some(AMQP_HEARTBEAT_SECONDS);
        let management_url =
            Url::parse(settings.broker_management_url.expose_secret()).map_err(|_| BrokerError::Url)?;
        Ok(Self {
            uri,
            management: Management::new(&management_url, &settings.vhost)?,
            live: watch::Sender::new(None),
            task_queue_type: settings.task_queue_type,
            result_queue_expiry: settings.result_queue_expiry,
        })
    }

    /// The connections, if there are any.
    ///
    /// # Errors
    /// [`BrokerError::Disconnected`].
    pub(crate) fn live(&self) -> Result<Arc<Live>, BrokerError> {
        self.live.borrow().clone().ok_or(BrokerError::Disconnected)
    }

    /// Tells of each connection that is made or lost.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Live>>> {
        self.live.subscribe()
    }

    /// The API for users and permissions.
    pub(crate) const fn management(&self) -> &Management {
        &self.management
    }

    async fn open(&self, name: &str) -> Result<Connection, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        Connection::connect_uri(self.uri.clone(), properties)
            .await
            .map_err(at("connecting"))
    }

    async fn connect(&self) -> Result<(Live, Connection), BrokerError> {
        let publishing = self.open("waypost interchange, publishing").await?;
        let consuming = self.open("waypost interchange, consuming").await?;
        let publisher = Publisher::new(new_channel(&publishing).await?)
            .await
            .map_err(at("asking for confirms"))?;
        let forwarder = Publisher::new(new_channel(&publishing).await?)
            .await
            .map_err(at("asking for confirms"))?;
        let declarations = Mutex::new((new_channel(&publishing).await?, 0));
        let version = self.management.version().await?;
        let queue_type = match self.task_queue_type {
            Some(queue_type) => queue_type,
            None if self.management.default_queue_type().await?.as_deref() == Some("quorum") => TaskQueueType::Quorum,
            None => TaskQueueType::Classic,
        };
        let live = Live {
            publisher,
            forwarder,
            declarations,
            publishing,
            task_queue_arguments: task_queue_arguments(queue_type, &version),
            result_queue_arguments: result_queue_arguments(self.result_queue_expiry),
        };
        Ok((live, consuming))
    }
}

/// A new channel on a connection.
pub(super) async fn new_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    connection.create_channel().await.map_err(at("opening a channel"))
}

/// Quorum queues of RabbitMQ 4 drop a message after 20 deliveries unless told otherwise; those of RabbitMQ 3 never do
/// and refuse the number that says so.
fn task_queue_arguments(queue_type: TaskQueueType, version: &str) -> FieldTable {
    if queue_type == TaskQueueType::Classic {
        return classic();
    }
    let mut arguments = FieldTable::default();
    arguments.insert(QUEUE_TYPE.into(), AMQPValue::LongString("quorum".into()));
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if major >= 4 {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(-1));
    }
    arguments
}

/// The queue argument that names its type.
const QUEUE_TYPE: &str = "x-queue-type";

/// The arguments of a classic queue. The type is named, for a virtual host may have another default, which counts
/// deliveries and drops at a limit.
fn classic() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(QUEUE_TYPE.into(), AMQPValue::LongString("classic".into()));
    arguments
}

fn result_queue_arguments(expiry: Duration) -> FieldTable {
    let mut arguments = classic();
    let milliseconds = i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX).max(1);
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(milliseconds));
    arguments
}

impl Live {
    /// Makes an endpoint's queue, if it is not there.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn declare_endpoint_queue(&self, endpoint: &Endpoint) -> Result<(), BrokerError> {
        let name = endpoint_queue(endpoint.id, endpoint.registration.kind);
        self.declare(&name, self.task_queue_arguments.clone()).await
    }

    /// Makes a task group's result queue, if it is not there. It goes away by itself when it is not used.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn declare_result_queue(&self, name: &str) -> Result<(), BrokerError> {
        self.declare(name, self.result_queue_arguments.clone()).await
    }

    async fn declare(&self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let mut guard = self.declarations.lock().await;
        let (channel, count) = &mut *guard;
        if *count >= DECLARATIONS_PER_CHANNEL || !channel.status().connected() {
            let fresh = new_channel(&self.publishing).await?;
            let old = std::mem::replace(channel, fresh);
            *count = 0;
            // A channel that the broker has closed already can't be closed again.
            at_most(old.close(200, "replaced".into())).await;
        }
        *count += 1;
        match channel
            .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_precondition_failed(&error) => {
                tracing::warn!(
                    queue = name,
                    "the queue was made with other options; it is used as it is"
                );
                Ok(())
            }
            Err(source) => Err(at("declaring a queue")(source)),
        }
    }

    /// Removes a queue with all that is in it, if it is there.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn delete_queue(&self, name: &str) -> Result<(), BrokerError> {
        let channel = new_channel(&self.publishing).await?;
        channel
            .queue_delete(name.into(), QueueDeleteOptions::default())
            .await
            .map_err(at("deleting a queue"))?;
        at_most(channel.close(200, "done".into())).await;
        Ok(())
    }

    /// Removes a queue, unless it has a message or a consumer; whether it is gone.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn delete_unused_queue(&self, name: &str) -> Result<bool, BrokerError> {
        let channel = new_channel(&self.publishing).await?;
        let options = QueueDeleteOptions {
            if_unused: true,
            if_empty: true,
            ..QueueDeleteOptions::default()
        };
        match channel.queue_delete(name.into(), options).await {
            Ok(_) => {
                at_most(channel.close(200, "done".into())).await;
                Ok(true)
            }
            Err(error) if is_precondition_failed(&error) => Ok(false),
            Err(source) => Err(at("deleting a queue")(source)),
        }
    }

    /// A channel for something that may fail without harm to others.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn channel(&self) -> Result<Channel, BrokerError> {
        new_channel(&self.publishing).await
    }
}

fn is_precondition_failed(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return false;
    };
    matches!(amqp.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
}

/// Connects to the broker, and again whenever the connection is lost, until `stop`.
pub(crate) async fn keep_connected(app: Arc<App>, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let session = async {
            let (live, consuming) = app.broker.connect().await?;
            prepare(&app, &live).await?;
            Ok::<_, BrokerError>((Arc::new(live), consuming))
        };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = session => outcome,
        };
        match outcome {
            Ok((live, consuming)) => {
                tracing::info!("connected to the broker");
                pause = Duration::from_millis(100);
                app.metrics.broker_connected.set(1);
                app.broker.live.send_replace(Some(Arc::clone(&live)));
                let ended = tokio::select! {
                    () = stop.cancelled() => None,
                    ended = serve(&app, &live, &consuming) => Some(ended),
                };
                app.broker.live.send_replace(None);
                app.metrics.broker_connected.set(0);
                match &ended {
                    None => {}
                    Some(Err(error)) => tracing::warn!(%error, "lost the broker"),
                    Some(Ok(())) => tracing::warn!("lost the broker: it ended a consumer"),
                }
                at_most(consuming.close(200, "ending".into())).await;
                at_most(live.publishing.close(200, "ending".into())).await;
                if ended.is_none() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the broker can't be used yet"),
        }
        app.metrics.broker_reconnects.inc();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jitter(pause)) => {}
        }
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Waits for a connection or channel to close, but not for long: one that is broken may never say that it is closed.
pub(super) async fn at_most(closing: impl Future<Output = lapin::Result<()>>) {
    let _ = tokio::time::timeout(CLOSE_PATIENCE, closing).await;
}

/// Between half and the whole of a pause, so that replicas don't come back all at once.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pause is half as long, which harms nothing.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

/// Makes what has to be there before anything is sent: exchanges, the service's queues, and the queue and user of every
/// endpoint and client, which a new broker has not.
async fn prepare(app: &App, live: &Live) -> Result<(), BrokerError> {
    let channel = live.channel().await?;
    for name in [RESULTS, HEARTBEATS] {
        channel
            .exchange_declare(
                name.into(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                },
                FieldTable::default(),
            )
            .await
            .map_err(at("declaring an exchange"))?;
        channel
            .queue_declare(name.into(), QueueDeclareOptions::durable(), classic())
            .await
            .map_err(at("declaring a queue"))?;
        channel
            .queue_bind(
                name.into(),
                name.into(),
                format!("*.{name}").into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(at("binding a queue"))?;
    }
    at_most(channel.close(200, "done".into())).await;

    let present = app.broker.management().users().await?;
    for endpoint in app.store.all_endpoints().await? {
        live.declare_endpoint_queue(&endpoint).await?;
        let user = BrokerUser::Endpoint(endpoint.id, endpoint.registration.kind);
        if endpoint.has_broker_user && !present.contains(&user.name()) {
            app.broker
                .management()
                .put_user(&user, &app.key.broker_password(&user.name(), endpoint.rotation))
                .await?;
        }
    }
    for client in app.store.clients().await? {
        let user = BrokerUser::Client(client.id);
        if client.has_broker_user && client.revoked_at.is_none() && !present.contains(&user.name()) {
            app.broker
                .management()
                .put_user(&user, &app.key.broker_password(&user.name(), client.rotation))
                .await?;
        }
    }
    Ok(())
}

/// Consumes results and heartbeats until a connection or consumer ends.
async fn serve(app: &Arc<App>, live: &Arc<Live>, consuming: &Connection) -> Result<(), BrokerError> {
    let heartbeats = new_channel(consuming).await?;
    tokio::select! {
        outcome = results::consume(app, live, consuming) => outcome,
        outcome = heartbeats::consume(app, &heartbeats) => outcome,
        error = failure(&live.publishing, "publishing") => Err(error),
        error = failure(consuming, "consuming") => Err(error),
    }
}

/// Waits for a connection to fail.
async fn failure(connection: &Connection, what: &'static str) -> BrokerError {
    let mut events = std::pin::pin!(connection.events_listener());
    while let Some(event) = events.next().await {
        match event {
            // A channel that the broker closed (a refused declaration) leaves the connection usable.
            Event::Error(error) if !connection.status().connected() => return at(what)(error),
            Event::ConnectionBlocked(reason) => tracing::warn!(reason, "the broker takes no messages for now"),
            Event::Error(_) | Event::Connected | Event::ConnectionUnblocked | Event::SendFlow(_) | _ => {}
        }
    }
    BrokerError::Disconnected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_queues_have_no_delivery_limit_on_any_broker() {
        let limit = |queue_type, version| {
            let arguments = task_queue_arguments(queue_type, version);
            arguments.inner().get("x-delivery-limit").cloned()
        };
        assert_eq!(limit(TaskQueueType::Quorum, "4.0.5"), Some(AMQPValue::LongLongInt(-1)));
        assert_eq!(limit(TaskQueueType::Quorum, "3.10.8"), None);
        assert_eq!(limit(TaskQueueType::Classic, "4.0.5"), None);
    }
}
