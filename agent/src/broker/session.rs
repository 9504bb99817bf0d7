use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use endpoint_back_off::BackOff;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicRejectOptions};
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Instant, Sleep, sleep};
use waypost_engine::{DeliveryTag, PublishId};
use waypost_protocol::{AmqpCredentials, QueueInfo};

use super::connection::{channel, connect, consume, publishing_channel};
use super::fence::{Fence, declare_passively};
use super::heartbeats::Heartbeats;
use super::properties::Publication;
use super::results::ResultPublisher;
use super::{BrokerError, BrokerState, DELIVERIES_PER_TURN, Event, delivery};

/// How long the closing of a connection waits for what is on its way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a consumer of a queue that this agent has just held may be its own, on the connection that it lost: the
/// broker needs a moment to notice. If it is told so only after that, workers need not be sent away and called back.
const OWN_GONE: Duration = Duration::from_secs(1);

/// The life of the consumer.
enum Consuming {
    /// Another has the queue, and it is asked for again after this.
    Waiting(Pin<Box<Sleep>>),
    /// A consumer is being started.
    Starting(BoxFuture<'static, Result<(Channel, Consumer), BrokerError>>),
    /// Consuming.
    Running { channel: Arc<Channel>, consumer: Consumer },
    /// The window changes: the old consumer may still deliver until its cancel is answered.
    Changing {
        channel: Arc<Channel>,
        retired: Option<Consumer>,
        change: MaybeDone<BoxFuture<'static, lapin::Result<Option<Consumer>>>>,
    },
    /// Told not to consume (a window of 0). Old tags are still valid.
    Paused { channel: Option<Arc<Channel>> },
}

/// What is open while there is a connection.
pub(super) struct Session {
    queue: String,
    connection: Arc<Connection>,
    closings: Vec<BoxStream<'static, lapin::Event>>,
    connections: Vec<Arc<Connection>>,
    consuming: Consuming,
    window: u16,
    applied: u16,
    epoch: u64,
    fence: Arc<Fence>,
    standby: bool,
    standby_wait: BackOff,
    publisher: ResultPublisher,
    heartbeats: Heartbeats,
    depth: Option<BoxFuture<'static, Result<u32, BrokerError>>>,
    depth_refused: bool,
    opened: Instant,
}

impl Session {
    /// Connects, opens the channels, and begins to consume with `window` unless it is 0. `epoch` counts the consuming
    /// channels so far.
    pub(super) async fn open(
        credentials: AmqpCredentials,
        name: String,
        window: u16,
        epoch: u64,
    ) -> Result<Box<Self>, BrokerError> {
        let AmqpCredentials {
            endpoint_id: _,
            task_queue_info: tasks,
            result_queue_info: results,
            heartbeat_queue_info: heartbeats,
        } = credentials;
        let publication = read_publication(&results, "results")?;
        let heartbeat_publication = read_publication(&heartbeats, "heartbeats")?;
        let connection = connect(&tasks, "tasks", &name).await?;
        let mut connections = vec![(tasks.connection_url.clone(), Arc::clone(&connection))];
        for (info, what) in [(&results, "results"), (&heartbeats, "heartbeats")] {
            if connections.iter().all(|(url, _)| *url != info.connection_url) {
                let other = connect(info, what, &name).await?;
                connections.push((info.connection_url.clone(), other));
            }
        }
        let to = |info: &QueueInfo| {
            let found = connections.iter().find(|(url, _)| *url == info.connection_url);
            Arc::clone(found.map_or(&connection, |(_, connection)| connection))
        };
        let results_channel = publishing_channel(&to(&results), &results, &publication).await?;
        let heartbeats = Heartbeats::new(to(&heartbeats), heartbeats, heartbeat_publication);
        let closings = connections
            .iter()
            .map(|(_, connection)| connection.events_listener().boxed())
            .collect();
        let mut session = Self {
            queue: tasks.queue,
            closings,
            connections: connections.into_iter().map(|(_, connection)| connection).collect(),
            connection,
            consuming: Consuming::Paused { channel: None },
            window,
            applied: 0,
            epoch,
            fence: Arc::default(),
            standby: false,
            standby_wait: BackOff::new(Duration::from_millis(100), Duration::from_secs(1)),
            publisher: ResultPublisher::new(results_channel, publication),
            heartbeats,
            depth: None,
            depth_refused: false,
            opened: Instant::now(),
        };
        if window > 0 {
            session.start_consumer();
        }
        Ok(Box::new(session))
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) const fn window(&self) -> u16 {
        self.window
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) const fn state(&self) -> BrokerState {
        match self.consuming {
            _ if self.standby => BrokerState::Standby,
            Consuming::Waiting(_) | Consuming::Starting(_) => BrokerState::Connecting,
            Consuming::Running { .. } | Consuming::Changing { .. } | Consuming::Paused { .. } => BrokerState::Consuming,
        }
    }

    /// The epoch whose tags are valid.
    pub(super) const fn consuming(&self) -> Option<u64> {
        match self.consuming {
            Consuming::Waiting(_) | Consuming::Starting(_) | Consuming::Paused { channel: None } => None,
            Consuming::Running { .. } | Consuming::Changing { .. } | Consuming::Paused { channel: Some(_) } => {
                Some(self.epoch)
            }
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.publisher.is_flushed()
    }

    pub(super) const fn set_prefetch(&mut self, window: u16) {
        self.window = window;
    }

    // The client queues a frame at the first poll of its future, and what it resolves to is only that the frame was
    // written. Nobody waits for that: if the channel is gone, its consumer says so.
    pub(super) fn ack(&self, tag: DeliveryTag, multiple: bool) {
        if let Some(channel) = self.channel_of(tag) {
            let _ = channel.basic_ack(tag.tag, BasicAckOptions { multiple }).now_or_never();
        }
    }

    pub(super) fn give_back(&self, tag: DeliveryTag) {
        if let Some(channel) = self.channel_of(tag) {
            let options = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            let _ = channel.basic_nack(tag.tag, options).now_or_never();
        }
    }

    /// False if it is known that the broker refuses to say.
    pub(super) fn ask_depth(&mut self) -> bool {
        if self.depth.is_some() || self.depth_refused {
            return !self.depth_refused;
        }
        let (connection, queue) = (Arc::clone(&self.connection), self.queue.clone());
        let asking = async move {
            let channel = channel(&connection).await?;
            let queue = declare_passively(&channel, &queue)
                .await
                .map_err(|error| BrokerError::from_lapin(&error))?;
            let ready = queue.message_count();
            let _ = channel.close(200, "asked".into()).await;
            Ok(ready)
        };
        self.depth = Some(asking.boxed());
        true
    }

    pub(super) fn heartbeat(&mut self, body: Bytes) {
        self.heartbeats.send(body);
    }

    /// Takes everything one step on. Ready with an error if the session is over; ready without one if it may be
    /// polled again at once.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        publishes: &mut VecDeque<(PublishId, Bytes)>,
        events: &mut VecDeque<Event>,
    ) -> Poll<Result<(), BrokerError>> {
        if let Poll::Ready(Err(error)) = self.publisher.poll(context, publishes, events) {
            return Poll::Ready(Err(error));
        }
        let _ = self.heartbeats.poll(context, events);
        self.poll_depth(context, events);
        self.poll_closings(context)?;
        self.poll_consuming(context, events)
    }

    /// Sends the last heartbeat and closes.
    pub(super) async fn close(mut self: Box<Self>) {
        let mut told = VecDeque::new();
        let heartbeat = std::future::poll_fn(|context| self.heartbeats.poll(context, &mut told));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, heartbeat).await;
        if let Some(Event::Heartbeat(Err(error))) = told.pop_back() {
            tracing::warn!(%error, "the last heartbeat could not be sent");
        }
        for connection in &self.connections {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "goodbye".into())).await;
        }
    }

    fn channel_of(&self, tag: DeliveryTag) -> Option<&Channel> {
        if tag.channel.0 != self.epoch {
            return None;
        }
        match &self.consuming {
            Consuming::Running { channel, .. }
            | Consuming::Changing { channel, .. }
            | Consuming::Paused { channel: Some(channel) } => Some(channel),
            Consuming::Waiting(_) | Consuming::Starting(_) | Consuming::Paused { channel: None } => None,
        }
    }

    fn start_consumer(&mut self) {
        let (connection, queue, window) = (Arc::clone(&self.connection), self.queue.clone(), self.window);
        let fence = Arc::clone(&self.fence);
        self.applied = window;
        let starting = async move { fence.consume_alone(&connection, &queue, window).await };
        self.consuming = Consuming::Starting(starting.boxed());
    }

    fn change_window(&mut self, channel: Arc<Channel>, consumer: Option<Consumer>) {
        let (window, queue) = (self.window, self.queue.clone());
        self.applied = window;
        let tag = consumer.as_ref().map(Consumer::tag);
        let with = Arc::clone(&channel);
        // All three are queued at the first poll, in this order, so that the queue is without a consumer for no
        // longer than it takes the broker to read them.
        let change = async move {
            let cancel = async {
                match tag {
                    Some(tag) => with.basic_cancel(tag, BasicCancelOptions { nowait: false }).await,
                    None => Ok(()),
                }
            };
            let start = async {
                match window {
                    0 => Ok(None),
                    _ => consume(&with, &queue, window).await.map(Some),
                }
            };
            let (cancelled, started) = futures_util::future::join(cancel, start).await;
            cancelled?;
            started
        };
        self.consuming = Consuming::Changing {
            channel,
            retired: consumer,
            change: maybe_done(change.boxed()),
        };
    }

    fn poll_consuming(
        &mut self,
        context: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> Poll<Result<(), BrokerError>> {
        match &mut self.consuming {
            // Who is told to consume no more meanwhile would take the queue from those who wait for it, too.
            Consuming::Waiting(_) if self.window == 0 => self.consuming = Consuming::Paused { channel: None },
            Consuming::Waiting(wait) => {
                std::task::ready!(wait.as_mut().poll(context));
                self.start_consumer();
            }
            Consuming::Starting(starting) => match std::task::ready!(starting.poll_unpin(context)) {
                Ok((channel, consumer)) => {
                    self.epoch += 1;
                    self.standby = false;
                    self.standby_wait.reset();
                    events.push_back(Event::Consuming { channel: self.epoch });
                    let channel = Arc::new(channel);
                    self.consuming = Consuming::Running { channel, consumer };
                }
                Err(BrokerError::ExclusiveUse) => {
                    let may_be_ours = self.epoch > 0 && self.age() < OWN_GONE;
                    if !may_be_ours && !std::mem::replace(&mut self.standby, true) {
                        events.push_back(Event::Standby);
                    }
                    self.consuming = Consuming::Waiting(Box::pin(sleep(self.standby_wait.next_wait())));
                }
                Err(error) => return Poll::Ready(Err(error)),
            },
            Consuming::Running { channel, consumer } => {
                if self.window != self.applied {
                    let (channel, consumer) = (Arc::clone(channel), consumer.clone());
                    self.change_window(channel, Some(consumer));
                    return Poll::Ready(Ok(()));
                }
                if std::task::ready!(take(context, consumer, channel, self.epoch, events))?.is_none() {
                    return Poll::Ready(Err(BrokerError::Cancelled));
                }
            }
            Consuming::Changing {
                channel,
                retired,
                change,
            } => {
                // The new consumer's deliveries come after the last of the old one's: they must be handed on in the
                // order of their tags, because an acknowledgement of several covers all smaller ones.
                let changed = change.poll_unpin(context);
                if let Some(consumer) = retired {
                    if std::task::ready!(take(context, consumer, channel, self.epoch, events))?.is_none() {
                        *retired = None;
                    }
                    return Poll::Ready(Ok(()));
                }
                std::task::ready!(changed);
                let consumer = match Pin::new(change).take_output() {
                    Some(outcome) => outcome.map_err(|error| BrokerError::from_lapin(&error))?,
                    None => None,
                };
                let channel = Arc::clone(channel);
                self.consuming = match consumer {
                    Some(consumer) => Consuming::Running { channel, consumer },
                    None => Consuming::Paused { channel: Some(channel) },
                };
            }
            Consuming::Paused { channel } => {
                if self.window == 0 {
                    return Poll::Pending;
                }
                match channel.take() {
                    Some(channel) => self.change_window(channel, None),
                    None => self.start_consumer(),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_depth(&mut self, context: &mut Context<'_>, events: &mut VecDeque<Event>) {
        if let Some(asking) = &mut self.depth
            && let Poll::Ready(answer) = asking.poll_unpin(context)
        {
            self.depth = None;
            match answer {
                Ok(ready) => events.push_back(Event::Depth { ready }),
                Err(error) => {
                    tracing::debug!(%error, "the depth of the task queue can not be asked");
                    self.depth_refused = true;
                    events.push_back(Event::DepthRefused);
                }
            }
        }
    }

    /// A session that does not consume learns from this that its connection is gone.
    fn poll_closings(&mut self, context: &mut Context<'_>) -> Result<(), BrokerError> {
        for (listener, connection) in self.closings.iter_mut().zip(&self.connections) {
            while let Poll::Ready(Some(event)) = Pin::new(&mut *listener).poll_next(context) {
                if let lapin::Event::Error(error) = &event
                    && !connection.status().connected()
                {
                    return Err(BrokerError::from_lapin(error));
                }
            }
        }
        Ok(())
    }
}

/// Takes what a consumer has. None if it ended.
fn take(
    context: &mut Context<'_>,
    consumer: &mut Consumer,
    channel: &Channel,
    epoch: u64,
    events: &mut VecDeque<Event>,
) -> Poll<Result<Option<()>, BrokerError>> {
    let mut taken = 0;
    while taken < DELIVERIES_PER_TURN {
        match Pin::new(&mut *consumer).poll_next(context) {
            Poll::Ready(Some(Ok(message))) => {
                let tag = message.delivery_tag;
                match delivery::read(epoch, message) {
                    Ok(delivery) => events.push_back(Event::Delivery(delivery)),
                    Err(why) => {
                        let options = BasicRejectOptions { requeue: false };
                        let _ = channel.basic_reject(tag, options).now_or_never();
                        events.push_back(Event::Malformed(why));
                    }
                }
                taken += 1;
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(BrokerError::from_lapin(&error))),
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Pending if taken == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(Some(())))
}

fn read_publication(info: &QueueInfo, what: &'static str) -> Result<Publication, BrokerError> {
    Publication::read(info).map_err(|why| BrokerError::Address { what, why })
}
