//! The publisher of a user endpoint's heartbeats.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::{Channel, Connection};
use waypost_protocol::QueueInfo;

use super::connection::publishing_channel;
use super::properties::Publication;
use super::publisher::publish_safely;
use super::{BrokerError, Event};

/// Publishes on a channel of its own, so that its troubles are nobody else's. Only the newest heartbeat is worth
/// sending.
pub(super) struct Heartbeats {
    connection: Arc<Connection>,
    info: Arc<QueueInfo>,
    publication: Arc<Publication>,
    channel: Option<Arc<Channel>>,
    pending: Option<Bytes>,
    sending: Option<BoxFuture<'static, Result<Arc<Channel>, BrokerError>>>,
}

impl Heartbeats {
    pub(super) fn new(connection: Arc<Connection>, info: QueueInfo, publication: Publication) -> Self {
        Self {
            connection,
            info: Arc::new(info),
            publication: Arc::new(publication),
            channel: None,
            pending: None,
            sending: None,
        }
    }

    /// Takes a heartbeat to send, in place of one that still waits.
    pub(super) fn send(&mut self, body: Bytes) {
        self.pending = Some(body);
    }

    /// Ready if nothing is left to send. What became of each is an event.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, events: &mut VecDeque<Event>) -> Poll<()> {
        loop {
            if let Some(sending) = &mut self.sending {
                let sent = ready!(sending.poll_unpin(context)).map(|channel| self.channel = Some(channel));
                self.sending = None;
                events.push_back(Event::Heartbeat(sent));
            }
            let Some(body) = self.pending.take() else {
                return Poll::Ready(());
            };
            let (connection, info) = (Arc::clone(&self.connection), Arc::clone(&self.info));
            let (publication, open) = (Arc::clone(&self.publication), self.channel.take());
            let sending = async move {
                let channel = match open {
                    Some(channel) => channel,
                    None => publishing_channel(&connection, &info, &publication).await?,
                };
                publish_safely(&channel, &publication, &body).await?;
                Ok(channel)
            };
            self.sending = Some(sending.boxed());
        }
    }
}
