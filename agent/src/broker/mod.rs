//! AMQP: tasks in, results and heartbeats out, acknowledgements, reconnects.
//!
//! A [`Broker`] is the connection of one user endpoint. It is driven by the user endpoint's loop: orders are given by
//! plain calls that never wait, and [`Broker::next`] yields what happened since. Nothing here decides anything about
//! tasks.
//!
//! What the broker does on its own is to reconnect (back-off with jitter), to wait while another consumer holds the
//! queue, and to tell refused credentials from an unreachable broker. A delivery is named by its channel's epoch and
//! its tag, so that an acknowledgement for a channel that is gone is dropped here and never sent for another message.

mod commands;
mod connection;
mod delivery;
mod error;
mod fence;
mod heartbeats;
mod properties;
mod publisher;
mod results;
mod session;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use endpoint_back_off::BackOff;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::time::{Sleep, sleep};
use waypost_engine::{Delivery, DeliveryTag, PublishId, PublishOutcome};
use waypost_protocol::AmqpCredentials;

use session::Session;

pub use commands::{CommandDelivery, Commands};
pub use error::BrokerError;
pub use publisher::Publisher;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Connected: results can be published.
    Connected,
    /// Consuming on a new channel; deliveries follow.
    Consuming {
        /// The channel's epoch.
        channel: u64,
    },
    /// Another consumer holds the queue. The broker tries again by itself.
    Standby,
    /// The connection or its channel is gone: all tags of `channel` are void, and of every publish without an answer
    /// nobody knows what became of it. The broker reconnects by itself.
    Lost {
        /// The epoch of the channel that was lost; none if there was no consumer.
        channel: Option<u64>,
        /// Why.
        reason: BrokerError,
    },
    /// The broker refuses the credentials. It is tried again with new ones, and seldom with these.
    Refused(String),
    /// A task.
    Delivery(Delivery),
    /// A message that is no task has been rejected (and dead-lettered, if the queue has where to).
    Malformed(String),
    /// How many tasks wait in the queue beyond those delivered.
    Depth {
        /// The number of messages that are ready.
        ready: u32,
    },
    /// The queue's depth can not be asked on this connection.
    DepthRefused,
    /// The broker has a heartbeat, or why it has not.
    Heartbeat(Result<(), BrokerError>),
    /// The answer to [`Broker::publish`].
    Published {
        /// The id that was given.
        publish: PublishId,
        /// What became of it.
        outcome: PublishOutcome,
    },
}

/// The state of the connection to the broker, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerState {
    /// Connecting, or waiting to try again.
    Connecting,
    /// Connected and consuming.
    Consuming,
    /// Connected, and waiting for another consumer to go away.
    Standby,
    /// The credentials are refused.
    Refused,
    /// Not connected, and not going to be.
    Closed,
}

/// How often refused credentials are tried again, in case the broker's own user store was at fault.
const REFUSED_RETRY: Duration = Duration::from_secs(30);
/// The most deliveries that one turn hands over, so that a turn stays short.
const DELIVERIES_PER_TURN: usize = 256;
/// A connection that held for this long was a good one: the next back-off starts from the shortest wait.
const STABLE: Duration = Duration::from_secs(10);

enum State {
    /// Waiting to connect.
    Waiting(Pin<Box<Sleep>>),
    /// Connecting.
    Connecting(BoxFuture<'static, Result<Box<Session>, BrokerError>>),
    /// Connected.
    Up(Box<Session>),
    /// Closed for good.
    Closed,
}

/// The AMQP connection of one user endpoint.
pub struct Broker {
    credentials: AmqpCredentials,
    name: String,
    state: State,
    shown: BrokerState,
    back_off: BackOff,
    window: u16,
    epoch: u64,
    publishes: VecDeque<(PublishId, Bytes)>,
    events: VecDeque<Event>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("name", &self.name)
            .field("state", &self.shown)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker that begins to connect at the first [`Broker::next`]. `name` is shown in the broker's list of
    /// connections; `window` is the prefetch to start with.
    #[must_use]
    pub fn new(credentials: AmqpCredentials, name: String, window: u16) -> Self {
        let back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(10));
        Self {
            credentials,
            name,
            state: State::Waiting(Box::pin(sleep(Duration::ZERO))),
            shown: BrokerState::Connecting,
            back_off,
            window,
            epoch: 0,
            publishes: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The connection's state, for people.
    #[must_use]
    pub const fn state(&self) -> BrokerState {
        self.shown
    }

    /// Publishes a result as the service asked. The answer comes as [`Event::Published`], or for all at once as
    /// [`Event::Lost`]. Dropped without a connection: [`Event::Lost`] has come before.
    pub fn publish(&mut self, publish: PublishId, body: Bytes) {
        if matches!(self.state, State::Up(_)) {
            self.publishes.push_back((publish, body));
        }
    }

    /// Acknowledges a delivery, or with `multiple` all up to it. Dropped if its channel is gone.
    pub fn ack(&mut self, tag: DeliveryTag, multiple: bool) {
        if let State::Up(session) = &mut self.state {
            session.ack(tag, multiple);
        }
    }

    /// Gives a delivery back to the queue. Dropped if its channel is gone (the broker has it back already).
    pub fn give_back(&mut self, tag: DeliveryTag) {
        if let State::Up(session) = &mut self.state {
            session.give_back(tag);
        }
    }

    /// Changes the prefetch window: cancel, qos and consume in one go on the same channel, which keeps tags valid.
    /// A window of 0 stops consuming.
    pub fn set_prefetch(&mut self, window: u16) {
        self.window = window;
        if let State::Up(session) = &mut self.state {
            session.set_prefetch(window);
        }
    }

    /// Asks how many tasks wait in the queue. The answer is [`Event::Depth`] or [`Event::DepthRefused`]; there is none
    /// if the connection is lost meanwhile.
    pub fn ask_depth(&mut self) {
        if let State::Up(session) = &mut self.state
            && !session.ask_depth()
        {
            self.events.push_back(Event::DepthRefused);
        }
    }

    /// Publishes a heartbeat. Without a connection it is dropped: the next one says more.
    pub fn heartbeat(&mut self, body: Bytes) {
        if let State::Up(session) = &mut self.state {
            session.heartbeat(body);
        }
    }

    /// Takes newer credentials: it reconnects if they differ from those in use, and at once if those were refused.
    pub fn replace_credentials(&mut self, credentials: AmqpCredentials) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let differ = credentials != self.credentials;
        self.credentials = credentials;
        if differ || self.shown == BrokerState::Refused {
            if let State::Up(session) = &mut self.state {
                self.epoch = session.epoch();
                let channel = session.consuming();
                self.publishes.clear();
                let reason = BrokerError::CredentialsReplaced;
                self.events.push_back(Event::Lost { channel, reason });
            }
            self.shown = BrokerState::Connecting;
            self.back_off.reset();
            self.state = State::Waiting(Box::pin(sleep(Duration::ZERO)));
        }
    }

    /// Connects at once, if that is not under way: when a refusal was long ago, or the next attempt is.
    pub fn try_at_once(&mut self) {
        if matches!(self.state, State::Waiting(_)) {
            self.shown = BrokerState::Connecting;
            self.state = State::Waiting(Box::pin(sleep(Duration::ZERO)));
        }
    }

    /// Lets the queue go, and tries for it again after a back-off: whoever else waits for it has it first.
    pub fn let_go(&mut self) {
        if let State::Up(session) = &mut self.state {
            let channel = session.consuming();
            self.epoch = session.epoch();
            self.fail(channel, BrokerError::LetGo);
        }
    }

    /// Waits until something has happened, and puts all that is ready into `events`, in order.
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self, events: &mut Vec<Event>) {
        poll_fn(|context| self.poll_next(context, events)).await;
    }

    /// As [`Broker::next`], for a caller that polls.
    pub fn poll_next(&mut self, context: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        loop {
            let progress = self.poll_state(context);
            if !self.events.is_empty() {
                events.extend(self.events.drain(..));
                return Poll::Ready(());
            }
            if progress.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether every publish has been answered.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.publishes.is_empty()
            && match &self.state {
                State::Up(session) => session.is_flushed(),
                State::Waiting(_) | State::Connecting(_) | State::Closed => true,
            }
    }

    /// Closes the connection in good order. Heartbeats on their way are sent before, for at most two seconds; the
    /// broker takes back what was not acknowledged.
    pub async fn close(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.shown = BrokerState::Closed;
        if let State::Up(session) = state {
            session.close().await;
        }
    }

    /// Takes the state one step on; ready if it may be polled again at once.
    fn poll_state(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Waiting(until) => {
                std::task::ready!(until.as_mut().poll(context));
                let open = Session::open(self.credentials.clone(), self.name.clone(), self.window, self.epoch);
                self.state = State::Connecting(open.boxed());
                Poll::Ready(())
            }
            State::Connecting(connecting) => {
                match std::task::ready!(connecting.poll_unpin(context)) {
                    Ok(session) => {
                        self.events.push_back(Event::Connected);
                        self.state = State::Up(session);
                    }
                    Err(error) => self.fail(None, error),
                }
                Poll::Ready(())
            }
            State::Up(session) => {
                if session.window() != self.window {
                    session.set_prefetch(self.window);
                }
                match session.poll(context, &mut self.publishes, &mut self.events) {
                    Poll::Ready(Err(error)) => {
                        if session.age() > STABLE {
                            self.back_off.reset();
                        }
                        let channel = session.consuming();
                        self.epoch = session.epoch();
                        self.fail(channel, error);
                        Poll::Ready(())
                    }
                    Poll::Ready(Ok(())) => {
                        self.shown = session.state();
                        self.epoch = session.epoch();
                        Poll::Ready(())
                    }
                    Poll::Pending => {
                        self.shown = session.state();
                        Poll::Pending
                    }
                }
            }
            State::Closed => Poll::Pending,
        }
    }

    fn fail(&mut self, channel: Option<u64>, reason: BrokerError) {
        self.publishes.clear();
        let wait = if let BrokerError::Refused(why) = &reason {
            self.shown = BrokerState::Refused;
            self.events.push_back(Event::Refused(why.clone()));
            REFUSED_RETRY
        } else {
            self.shown = BrokerState::Connecting;
            self.back_off.next_wait()
        };
        self.events.push_back(Event::Lost { channel, reason });
        self.state = State::Waiting(Box::pin(sleep(wait)));
    }
}
