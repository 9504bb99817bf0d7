//! One consumer a queue.
//!
//! A consumer asks to be the only one. A classic queue then refuses a second; a quorum queue of RabbitMQ does not heed
//! the wish and takes it. So consumers are counted, too, by declaring the queue passively: before one is added, so that
//! who waits takes no message from who serves, and after it, because another may have come in between. Whoever then
//! sees a second gives everything back unread and stands by; of two that come at once each may see the other, so that
//! both step back, for times that differ.
//!
//! Who serves does not count again, so a change of its window, which adds a consumer beside the one that it cancels,
//! never looks like a second agent: its new consumer is queued right behind the cancel, sooner than another agent's
//! can come that has first been told that there is none.
//!
//! A quorum queue counts a consumer until the queue has learned that its connection is gone: for moments if that was
//! closed, for up to three heartbeats if nobody said so, and for as long as the broker's node is down that it was on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use endpoint_back_off::BackOff;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer, Queue};
use tokio::time::sleep;

use super::BrokerError;
use super::connection::{channel, consume};
use super::properties::short;

/// Looks for one's own consumer until the broker is taken for one that counts none. A quorum queue that does not
/// answer RabbitMQ within a quarter of a second is said to have no messages and no consumers.
const LOOKS: usize = 10;

/// Whether the consumers of a queue can be counted on one connection.
#[derive(Debug, Default)]
pub(super) struct Fence {
    refused: AtomicBool,
}

impl Fence {
    /// Becomes the one consumer of a queue, on a channel of its own. [`BrokerError::ExclusiveUse`] if another is, or
    /// may be.
    ///
    /// If the broker refuses to be asked about the queue, that is remembered, and the wish to be the only one must do.
    pub(super) async fn consume_alone(
        &self,
        connection: &Connection,
        queue: &str,
        window: u16,
    ) -> Result<(Channel, Consumer), BrokerError> {
        let mut open = channel(connection).await?;
        if !self.refused.load(Ordering::Relaxed) {
            match consumers(&open, queue).await {
                Ok(0) => {}
                Ok(_) => return Err(step_back(&open).await),
                Err(BrokerError::Refused(why)) => {
                    tracing::debug!(%queue, %why, "the consumers of the queue can not be counted");
                    self.refused.store(true, Ordering::Relaxed);
                    // The refusal has closed the channel.
                    open = channel(connection).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let consumer = consume(&open, queue, window)
            .await
            .map_err(|error| BrokerError::from_lapin(&error))?;
        if !self.refused.load(Ordering::Relaxed) && !is_alone(&open, queue).await? {
            drop(consumer);
            return Err(step_back(&open).await);
        }
        Ok((open, consumer))
    }
}

/// Whether the consumer that was just added is the only one.
async fn is_alone(channel: &Channel, queue: &str) -> Result<bool, BrokerError> {
    let mut wait = BackOff::new(Duration::from_millis(10), Duration::from_millis(200));
    for _ in 0..LOOKS {
        match consumers(channel, queue).await? {
            0 => sleep(wait.next_wait()).await,
            count => return Ok(count == 1),
        }
    }
    tracing::warn!(%queue, "the broker does not count the consumers of the queue: a second agent may go unnoticed");
    Ok(true)
}

/// Closes the channel, by which the broker takes its consumer away and everything back that it was given.
async fn step_back(channel: &Channel) -> BrokerError {
    let _ = channel.close(200, "another agent consumes".into()).await;
    BrokerError::ExclusiveUse
}

async fn consumers(channel: &Channel, queue: &str) -> Result<u32, BrokerError> {
    let queue = declare_passively(channel, queue)
        .await
        .map_err(|error| BrokerError::from_lapin(&error))?;
    Ok(queue.consumer_count())
}

/// Asks what the broker says of a queue, which must exist.
pub(super) async fn declare_passively(channel: &Channel, queue: &str) -> lapin::Result<Queue> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = short(queue).unwrap_or_default();
    channel.queue_declare(queue, passive, FieldTable::default()).await
}
