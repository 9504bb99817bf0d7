use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream as _};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use waypost_engine::{PublishId, PublishOutcome};

use super::properties::Publication;
use super::{BrokerError, Event};

/// The client copies what it sends into frames: no more than this is with it at a time.
const UNCONFIRMED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// And no more messages: the client walks over all of them at each confirm of several.
const UNCONFIRMED_MESSAGES_MAX: usize = 1024;

type Answer = (PublishId, lapin::Result<Confirmation>);

/// Publishes messages on one channel and tells what became of each.
pub(super) struct ResultPublisher {
    channel: Arc<Channel>,
    publication: Arc<Publication>,
    sending: FuturesUnordered<BoxFuture<'static, Answer>>,
    unconfirmed: BTreeMap<PublishId, Bytes>,
    unconfirmed_bytes: usize,
    returned: BTreeSet<PublishId>,
    answers: Vec<Answer>,
}

impl ResultPublisher {
    pub(super) fn new(channel: Arc<Channel>, publication: Publication) -> Self {
        Self {
            channel,
            publication: Arc::new(publication),
            sending: FuturesUnordered::new(),
            unconfirmed: BTreeMap::new(),
            unconfirmed_bytes: 0,
            returned: BTreeSet::new(),
            answers: Vec::new(),
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Sends what `queue` holds as far as the bound allows, and reports answers. Ready with an error if the channel
    /// is gone.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        queue: &mut VecDeque<(PublishId, Bytes)>,
        events: &mut VecDeque<Event>,
    ) -> Poll<Result<(), BrokerError>> {
        loop {
            self.send(queue);
            self.collect(context);
            if self.answers.is_empty() {
                return Poll::Pending;
            }
            // When the broker confirms several at once, the client hands a returned message to any of them. It does
            // so under a lock that this call takes, too: after it all answers of that batch are there, and the
            // returned message can be matched with the publish that it belongs to.
            let _ = self.channel.wait_for_confirms().now_or_never();
            self.collect(context);
            if let Err(error) = self.report(events) {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn send(&mut self, queue: &mut VecDeque<(PublishId, Bytes)>) {
        while let Some((_, body)) = queue.front() {
            let full = self.unconfirmed_bytes + body.len() > UNCONFIRMED_BYTES_MAX
                || self.unconfirmed.len() >= UNCONFIRMED_MESSAGES_MAX;
            if full && !self.unconfirmed.is_empty() {
                return;
            }
            let Some((publish, body)) = queue.pop_front() else {
                return;
            };
            self.unconfirmed_bytes += body.len();
            self.unconfirmed.insert(publish, body.clone());
            let (channel, publication) = (Arc::clone(&self.channel), Arc::clone(&self.publication));
            let sending = async move { (publish, publish_and_confirm(&channel, &publication, &body).await) };
            self.sending.push(sending.boxed());
        }
    }

    fn collect(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(answer)) = std::pin::Pin::new(&mut self.sending).poll_next(context) {
            self.answers.push(answer);
        }
    }

    fn report(&mut self, events: &mut VecDeque<Event>) -> Result<(), BrokerError> {
        for (publish, answer) in &self.answers {
            if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = answer {
                let owner = self
                    .unconfirmed
                    .iter()
                    .find(|(id, body)| !self.returned.contains(id) && ***body == message.delivery.data);
                self.returned.insert(owner.map_or(*publish, |(id, _)| *id));
            }
        }
        let mut lost = Ok(());
        for (publish, answer) in self.answers.drain(..) {
            let outcome = match answer {
                Err(error) => {
                    lost = Err(BrokerError::from_lapin(&error));
                    continue;
                }
                Ok(_) if self.returned.remove(&publish) => PublishOutcome::Returned,
                Ok(Confirmation::Nack(_)) => PublishOutcome::Nacked,
                Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => PublishOutcome::Confirmed,
            };
            if let Some(body) = self.unconfirmed.remove(&publish) {
                self.unconfirmed_bytes -= body.len();
                events.push_back(Event::Published { publish, outcome });
            }
        }
        lost
    }
}

/// Publishes one message and waits for the broker's answer.
pub(super) async fn publish_and_confirm(
    channel: &Channel,
    publication: &Publication,
    body: &[u8],
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: publication.mandatory,
        immediate: false,
    };
    channel
        .basic_publish(
            publication.exchange.clone(),
            publication.routing_key.clone(),
            options,
            body,
            publication.properties.clone(),
        )
        .await?
        .await
}
