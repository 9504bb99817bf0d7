use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use endpoint_back_off::BackOff;
use endpoint_telemetry::{self as telemetry, Metrics};
use futures_util::StreamExt as _;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use waypost_protocol::QueueInfo;

use super::connection::connect;
use super::fence::Fence;
use super::{BrokerError, BrokerState, REFUSED_RETRY, STABLE};

/// Commands that are held here before the endpoint takes them.
const WINDOW: u16 = 16;

/// The consumer of an endpoint's command queue, exclusive, with reconnects of its own. It ends when the receiver of
/// the commands is dropped.
#[derive(Debug)]
pub struct Commands;

/// A message from the command queue.
#[derive(Debug)]
pub struct CommandDelivery {
    /// The content type that the sender gave.
    pub content_type: Option<String>,
    /// When it was sent, in seconds since the Unix epoch, if the sender said.
    pub timestamp: Option<u64>,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// The message.
    pub body: Bytes,
    acker: Acker,
}

impl CommandDelivery {
    /// Acknowledges it. If its channel is gone, nothing happens: the broker delivers it again.
    pub async fn ack(self) {
        let _ = self.acker.ack(BasicAckOptions::default()).await;
    }

    /// Puts the command back on its queue, whence it comes again.
    pub async fn give_back(self) {
        let requeue = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        let _ = self.acker.nack(requeue).await;
    }
}

impl Commands {
    /// Starts to consume from `queue`. `name` is shown in the broker's list of connections.
    #[must_use]
    pub fn start(
        queue: QueueInfo,
        name: String,
        metrics: Arc<Metrics>,
    ) -> (mpsc::Receiver<CommandDelivery>, watch::Receiver<BrokerState>) {
        let (commands, receiver) = mpsc::channel(1);
        let (state, states) = watch::channel(BrokerState::Connecting);
        tokio::spawn(async move {
            tokio::select! {
                () = commands.closed() => {}
                () = run(&queue, &name, &metrics, &commands, &state) => {}
            }
            state.send_replace(BrokerState::Closed);
        });
        (receiver, states)
    }
}

async fn run(
    queue: &QueueInfo,
    name: &str,
    metrics: &Metrics,
    commands: &mpsc::Sender<CommandDelivery>,
    state: &watch::Sender<BrokerState>,
) {
    let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let started = Instant::now();
        let error = match serve(queue, name, metrics, commands, state).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if started.elapsed() > STABLE {
            back_off.reset();
        }
        let wait = if matches!(error, BrokerError::Refused(_)) {
            state.send_replace(BrokerState::Refused);
            REFUSED_RETRY
        } else {
            state.send_replace(BrokerState::Connecting);
            back_off.next_wait()
        };
        tracing::warn!(%error, queue = %queue.queue, retry_in = ?wait, "no commands can be received");
        metrics.broker_reconnects.increment(telemetry::Connection::Commands);
        sleep(wait).await;
    }
}

/// One connection's life. Returns without an error if nobody wants commands any more.
async fn serve(
    queue: &QueueInfo,
    name: &str,
    metrics: &Metrics,
    commands: &mpsc::Sender<CommandDelivery>,
    state: &watch::Sender<BrokerState>,
) -> Result<(), BrokerError> {
    let connection = connect(queue, "commands", name).await?;
    let mut share = metrics.broker_connections.share();
    share.set(telemetry::Connection::Commands, 1);
    let fence = Fence::default();
    let mut standby_wait = BackOff::new(Duration::from_millis(100), Duration::from_secs(1));
    // The channel stays open for as long as this is in scope.
    let (_channel, mut consumer) = loop {
        match fence.consume_alone(&connection, &queue.queue, WINDOW).await {
            Ok(consuming) => break consuming,
            Err(BrokerError::ExclusiveUse) => {
                state.send_replace(BrokerState::Standby);
                sleep(standby_wait.next_wait()).await;
            }
            Err(error) => return Err(error),
        }
    };
    state.send_replace(BrokerState::Consuming);
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(|error| BrokerError::from_lapin(&error))?;
        let properties = &delivery.properties;
        let command = CommandDelivery {
            content_type: properties.content_type().as_ref().map(ToString::to_string),
            timestamp: *properties.timestamp(),
            redelivered: delivery.redelivered,
            body: Bytes::from(delivery.data),
            acker: delivery.acker,
        };
        if commands.send(command).await.is_err() {
            return Ok(());
        }
    }
    Err(BrokerError::Cancelled)
}
