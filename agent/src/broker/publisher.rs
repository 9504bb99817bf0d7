use std::sync::Arc;

use bytes::Bytes;
use endpoint_telemetry::{self as telemetry, Metrics, Share};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::Mutex;
use waypost_protocol::QueueInfo;

use super::BrokerError;
use super::connection::{connect, publishing_channel};
use super::properties::Publication;
use super::results::publish_and_confirm;

/// A publisher that stands alone: an endpoint's heartbeats, or a notice of failure. It connects at the first publish
/// and again after its connection was lost.
pub struct Publisher {
    info: QueueInfo,
    name: String,
    purpose: telemetry::Connection,
    metrics: Arc<Metrics>,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
    publication: Publication,
    _share: Share<telemetry::Connection>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("info", &self.info)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher to where `queue` says. `name` is shown in the broker's list of connections.
    #[must_use]
    pub fn start(queue: QueueInfo, name: String, purpose: telemetry::Connection, metrics: Arc<Metrics>) -> Self {
        Self {
            info: queue,
            name,
            purpose,
            metrics,
            open: Mutex::new(None),
        }
    }

    /// Publishes a message and waits until the broker has it. A connection that was lost meanwhile is made once more.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker can not be reached, refuses, or has no queue for the message.
    pub async fn publish(&self, body: Bytes) -> Result<(), BrokerError> {
        let mut open = self.open.lock().await;
        let reused = open.is_some();
        match self.try_publish(&mut open, &body).await {
            Err(_) if reused => {
                *open = None;
                self.metrics.broker_reconnects.increment(self.purpose);
                self.try_publish(&mut open, &body).await
            }
            outcome => outcome,
        }
        .inspect_err(|_| *open = None)
    }

    /// Closes the connection in good order.
    pub async fn close(&self) {
        if let Some(open) = self.open.lock().await.take() {
            let _ = open.connection.close(200, "goodbye".into()).await;
        }
    }

    async fn try_publish(&self, open: &mut Option<Open>, body: &[u8]) -> Result<(), BrokerError> {
        let open = match open {
            Some(open) => open,
            None => open.insert(self.connect().await?),
        };
        publish_safely(&open.channel, &open.publication, body).await
    }

    async fn connect(&self) -> Result<Open, BrokerError> {
        let what = "heartbeats";
        let publication = Publication::read(&self.info).map_err(|why| BrokerError::Address { what, why })?;
        let connection = connect(&self.info, what, &self.name).await?;
        let channel = publishing_channel(&connection, &self.info, &publication).await?;
        let mut share = self.metrics.broker_connections.share();
        share.set(self.purpose, 1);
        Ok(Open {
            connection,
            channel,
            publication,
            _share: share,
        })
    }
}

/// Publishes a message and waits until the broker has it in a queue.
pub(super) async fn publish_safely(
    channel: &Channel,
    publication: &Publication,
    body: &[u8],
) -> Result<(), BrokerError> {
    let confirmation = publish_and_confirm(channel, publication, body)
        .await
        .map_err(|error| BrokerError::from_lapin(&error))?;
    match confirmation {
        Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        Confirmation::Ack(Some(_)) => Err(BrokerError::Connection("no queue is bound for the message".to_owned())),
        Confirmation::Nack(_) => Err(BrokerError::Connection(
            "the broker could not store the message".to_owned(),
        )),
    }
}
