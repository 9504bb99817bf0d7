use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Mutex, watch};
use url::Url;

use super::management::Management;
use super::names::{BrokerUser, endpoint_queue};
use super::publisher::Publisher;
use super::{BrokerError, answer, at};
use crate::cli::TaskQueueType;
use crate::clock::Milliseconds;
use crate::config::Settings;
use crate::secrets::ServerKey;
use crate::store::Endpoint;

/// Seconds between AMQP heartbeats: a broker that is gone without a word is noticed after twice this.
const AMQP_HEARTBEAT_SECONDS: u16 = 10;
/// How long a close is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// A channel remembers every queue that was declared on it, so it is replaced after so many.
const DECLARATIONS_PER_CHANNEL: usize = 1_000;

/// For so many milliseconds a broker user that was made or renewed is taken for good. After that it is renewed when it is
/// about to be used: somebody may have changed its password or removed it.
pub(crate) const BROKER_USER_FRESH: Milliseconds = 15_000;

/// The broker, whether it can be reached now or not.
pub(crate) struct Broker {
    uri: AMQPUri,
    public_url: Url,
    key: ServerKey,
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
    /// A broker to which no connection is made yet; the passwords of its users are derived from `key`.
    ///
    /// # Errors
    /// [`BrokerError`]: a URL is not understood.
    pub(crate) fn new(settings: &Settings, key: ServerKey) -> Result<Self, BrokerError> {
        let mut uri = AMQPUri::from_str(settings.broker_url.expose_secret()).map_err(|_| BrokerError::Url)?;
        uri.query.heartbeat = Some(AMQP_HEARTBEAT_SECONDS);
        let management_url =
            Url::parse(settings.broker_management_url.expose_secret()).map_err(|_| BrokerError::Url)?;
        Ok(Self {
            uri,
            public_url: settings.broker_public_url.clone(),
            key,
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

    /// Says which connections are to be used from now on; none: they are lost.
    pub(crate) fn set_live(&self, live: Option<Arc<Live>>) {
        self.live.send_replace(live);
    }

    /// The API for users and permissions.
    pub(crate) const fn management(&self) -> &Management {
        &self.management
    }

    /// Its address for clients and endpoints, without a user.
    pub(super) const fn public_url(&self) -> &Url {
        &self.public_url
    }

    /// The password of a user. Every replica derives the same.
    pub(super) fn password(&self, user: &BrokerUser, rotation: i64) -> SecretString {
        self.key.broker_password(&user.name(), rotation)
    }

    /// Makes a user, or renews its password and permissions.
    ///
    /// # Errors
    /// [`BrokerError::Management`].
    pub(crate) async fn put_user(&self, user: &BrokerUser, rotation: i64) -> Result<(), BrokerError> {
        let password = self.password(user, rotation);
        Ok(self.management.put_user(user, &password).await?)
    }

    /// Removes a user, if it is there; the broker then closes its connections.
    ///
    /// # Errors
    /// [`BrokerError::Management`].
    pub(crate) async fn delete_user(&self, user: &BrokerUser) -> Result<(), BrokerError> {
        Ok(self.management.delete_user(user).await?)
    }

    async fn open(&self, name: &str) -> Result<Connection, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        Connection::connect_uri(self.uri.clone(), properties)
            .await
            .map_err(at("connecting"))
    }

    /// Makes the connections: those to publish by, and one to consume by.
    ///
    /// # Errors
    /// [`BrokerError`]: the broker, or its management, can't be used.
    pub(crate) async fn connect(&self) -> Result<(Live, Connection), BrokerError> {
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
            None if self.management.default_queue_type().await?.as_deref() == Some(QUORUM) => TaskQueueType::Quorum,
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

impl Broker {
    /// Whether an idle queue can't be used, which happens to quorum queues: of one without a leader the broker says so
    /// itself, after a minute (seen: 65 s), and closes the connection.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing was found out.
    pub(crate) async fn is_dead(&self, queue: &str) -> Result<bool, BrokerError> {
        if self.management.queue_type(queue).await? != QUORUM {
            return Ok(false);
        }
        let connection = self.open("waypost interchange, trying a queue").await?;
        let channel = new_channel(&connection).await?;
        let got = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .map_err(at("trying a queue"));
        if let Ok(Some(message)) = &got {
            let back = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            // If this fails the message goes back when the connection closes.
            let _ = message.delivery.acker.nack(back).await;
        }
        at_most(connection.close(200, "done".into())).await;
        match got {
            Ok(_) => Ok(false),
            Err(error) if kind(&error) == Some(&AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// A new channel on a connection.
pub(crate) async fn new_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    answer("opening a channel", connection.create_channel()).await
}

/// Quorum queues of RabbitMQ 4 drop a message after 20 deliveries unless told otherwise; those of RabbitMQ 3 never do
/// and refuse the number that says so.
fn task_queue_arguments(queue_type: TaskQueueType, version: &str) -> FieldTable {
    if queue_type == TaskQueueType::Classic {
        return classic();
    }
    let mut arguments = FieldTable::default();
    arguments.insert(QUEUE_TYPE.into(), AMQPValue::LongString(QUORUM.into()));
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
/// The type of queues that RabbitMQ keeps on several nodes.
const QUORUM: &str = "quorum";

/// The arguments of a classic queue. The type is named, for a virtual host may have another default, which counts
/// deliveries and drops at a limit.
pub(crate) fn classic() -> FieldTable {
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
        let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
        match answer("declaring a queue", declared).await {
            Ok(_) => Ok(()),
            Err(error) if is_soft(&error, AMQPSoftError::PRECONDITIONFAILED) => {
                tracing::warn!(
                    queue = name,
                    "the queue was made with other options; it is used as it is"
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a queue has neither messages that wait nor consumers; none if it is not there.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn is_idle(&self, name: &str) -> Result<Option<bool>, BrokerError> {
        let channel = new_channel(&self.publishing).await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = channel.queue_declare(name.into(), passive, FieldTable::default());
        match answer("looking at a queue", found).await {
            Ok(queue) => {
                at_most(channel.close(200, "done".into())).await;
                Ok(Some((queue.message_count(), queue.consumer_count()) == (0, 0)))
            }
            Err(error) if is_soft(&error, AMQPSoftError::NOTFOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a queue with all that is in it, if it is there.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn delete_queue(&self, name: &str) -> Result<(), BrokerError> {
        let channel = new_channel(&self.publishing).await?;
        // Of a queue that is dead the broker takes 5 s to be sure.
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
        match answer("deleting a queue", channel.queue_delete(name.into(), options)).await {
            Ok(_) => {
                at_most(channel.close(200, "done".into())).await;
                Ok(true)
            }
            Err(error) if is_soft(&error, AMQPSoftError::PRECONDITIONFAILED) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for the connection to fail, or one of the channels that messages are published on: both are made again
    /// together.
    pub(crate) async fn failed(&self) -> BrokerError {
        let what = tokio::select! {
            biased;
            error = failure(&self.publishing, "publishing") => return error,
            () = self.publisher.ended() => "tasks",
            () = self.forwarder.ended() => "results",
        };
        if self.publishing.status().connected() {
            BrokerError::ChannelClosed { what }
        } else {
            BrokerError::Disconnected
        }
    }

    /// Whether the connection is there.
    pub(crate) fn is_open(&self) -> bool {
        self.publishing.status().connected()
    }

    /// A publisher on a channel of its own, for messages that the broker may close it for.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn lone_publisher(&self) -> Result<Publisher, BrokerError> {
        Publisher::new(self.channel().await?)
            .await
            .map_err(at("asking for confirms"))
    }

    /// Closes the connections, if they are open.
    pub(crate) async fn close(&self) {
        at_most(self.publishing.close(200, "ending".into())).await;
    }

    /// A channel for something that may fail without harm to others.
    ///
    /// # Errors
    /// [`BrokerError::Amqp`].
    pub(crate) async fn channel(&self) -> Result<Channel, BrokerError> {
        new_channel(&self.publishing).await
    }
}

fn is_soft(error: &BrokerError, wanted: AMQPSoftError) -> bool {
    kind(error) == Some(&AMQPErrorKind::Soft(wanted))
}

/// What the broker said, if it is the broker's word.
fn kind(error: &BrokerError) -> Option<&AMQPErrorKind> {
    let BrokerError::Amqp { source, .. } = error else {
        return None;
    };
    let ErrorKind::ProtocolError(amqp) = source.kind() else {
        return None;
    };
    Some(amqp.kind())
}

/// Waits for a connection or channel to close, but not for long: one that is broken may never say that it is closed.
pub(crate) async fn at_most(closing: impl Future<Output = lapin::Result<()>>) {
    let _ = tokio::time::timeout(CLOSE_PATIENCE, closing).await;
}

/// Waits for a connection to fail.
pub(crate) async fn failure(connection: &Connection, what: &'static str) -> BrokerError {
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
