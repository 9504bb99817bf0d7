//! Publishing with confirms, many messages in one go.

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::{Mutex, Notify};

use super::connection::at_most;

/// The most bytes of a message's body: RabbitMQ 4 takes 16 MiB unless told otherwise, and closes the channel of a larger
/// one.
pub(crate) const BODY_MAX: usize = 16 << 20;
/// The most bytes of a task's headers. They are sent in one frame, in which endpoints may take no more than 32 KiB; whoever
/// gets a larger one has to close the connection.
pub(crate) const HEADERS_MAX: usize = 16 << 10;

/// A message for the queue `queue`, by the default exchange.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) queue: String,
    pub(crate) body: Bytes,
    pub(crate) properties: BasicProperties,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// The broker has it.
    Confirmed,
    /// There is no such queue.
    NoQueue,
    /// The broker did not take it.
    Refused,
    /// The channel closed before the broker said what became of it.
    Unknown,
}

/// A channel in confirm mode.
pub(crate) struct Publisher {
    channel: Channel,
    // The channel counts its messages as they are handed over and the broker as they arrive: one batch at a time, or a
    // confirm could be matched with another's message.
    order: Mutex<()>,
    /// The channel was found closed.
    ended: Notify,
}

impl Publisher {
    /// Turns a channel into a publisher.
    ///
    /// # Errors
    /// The broker's refusal of confirms, or a broken connection.
    pub(crate) async fn new(channel: Channel) -> lapin::Result<Self> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self {
            channel,
            order: Mutex::new(()),
            ended: Notify::new(),
        })
    }

    /// Closes the channel, if it is open.
    pub(crate) async fn close(self) {
        at_most(self.channel.close(200, "done".into())).await;
    }

    /// Waits until a publish finds the channel closed.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Publishes all messages, then waits for all confirms, for as long as the channel is open; the outcomes are in the
    /// messages' order.
    pub(crate) async fn publish(&self, messages: &[Outgoing]) -> Vec<Published> {
        let sent = {
            let _order = self.order.lock().await;
            join_all(messages.iter().map(|message| {
                self.channel.basic_publish(
                    "".into(),
                    message.queue.as_str().into(),
                    BasicPublishOptions {
                        mandatory: true,
                        ..BasicPublishOptions::default()
                    },
                    &message.body,
                    message.properties.clone(),
                )
            }))
            .await
        };
        let outcomes = join_all(sent.into_iter().map(outcome)).await;
        if outcomes.contains(&Published::Unknown) {
            self.ended.notify_one();
        }
        outcomes
    }
}

async fn outcome(sent: lapin::Result<PublisherConfirm>) -> Published {
    let Ok(confirm) = sent else { return Published::Unknown };
    match confirm.await {
        Ok(Confirmation::Ack(None)) => Published::Confirmed,
        // A message that finds no queue is returned first and acknowledged then.
        Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Published::NoQueue,
        Ok(Confirmation::Nack(None)) => Published::Refused,
        Ok(Confirmation::NotRequested) | Err(_) => Published::Unknown,
    }
}

/// The properties of a message that outlives a restart of the broker.
pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}
