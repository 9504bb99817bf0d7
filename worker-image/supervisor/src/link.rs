//! The connection to the agent over time: dialled, up, lost, dialled again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, timeout};
use waypost_link::{Address, CodecError, DEAD_AFTER, HEARTBEAT, Hello, HelloRefusal, Limits, ToAgent, ToWorker};

use crate::dial::{Backoff, Dialled, Reader, Writer, dial};

/// How often it is looked whether a heartbeat is due.
const PULSE: Duration = Duration::from_secs(1);

/// What the link reports.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// It is time to dial: call [`Link::dial`].
    DialNow,
    /// An agent said welcome.
    Up { result_credit: u64 },
    /// It said something; [`Link::received`] gives what came with it.
    Message(ToWorker),
    /// The connection is gone, and was there before.
    Down,
    /// The agent refused for good.
    Refused(String),
    /// No agent has answered for too long; what was wrong in the end.
    Orphaned(String),
    /// Nothing that concerns others.
    Nothing,
}

pub(crate) struct Link {
    /// Where the agent may be found, best first.
    addresses: Vec<Address>,
    tls: Option<Arc<rustls::ClientConfig>>,
    orphan_timeout: Duration,
    state: State,
    backoff: Backoff,
    down_since: Instant,
    /// Why there was no answer when it was last dialled.
    last_failure: Option<String>,
    /// When an agent last said anything.
    answered: Instant,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Dialling(Pin<Box<dyn Future<Output = Dialled>>>),
    Up(Box<Session>),
}

struct Session {
    reader: Box<Reader>,
    writer: Box<Writer>,
    said: Instant,
    pulse: Interval,
}

impl Link {
    /// A link that asks to be dialled at once.
    pub(crate) fn new(
        addresses: Vec<Address>,
        tls: Option<Arc<rustls::ClientConfig>>,
        orphan_timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            addresses,
            tls,
            orphan_timeout,
            state: State::Waiting(Box::pin(sleep(Duration::ZERO))),
            backoff: Backoff::default(),
            down_since: now,
            last_failure: None,
            answered: now,
        }
    }

    /// Dials with this hello; or, if there is none for the reason given, tries again later.
    pub(crate) fn dial(&mut self, hello: Result<Box<Hello>, String>) {
        match hello {
            Ok(hello) => {
                self.state = State::Dialling(Box::pin(dial(self.addresses.clone(), self.tls.clone(), hello)));
            }
            Err(reason) => {
                self.unanswered(&reason);
                self.wait();
            }
        }
    }

    /// Queues a message, if the link is up.
    pub(crate) fn send(&mut self, message: &ToAgent) {
        if let State::Up(session) = &mut self.state
            && let Err(error) = session.push(message)
        {
            tracing::error!("a message cannot be sent: {error}");
        }
    }

    /// What happens next. Writes what is queued meanwhile. Cancel-safe.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        match &mut self.state {
            State::Waiting(sleep) => {
                sleep.await;
                // Also where there is no dialling: a token file may be gone for good.
                if self.answered.elapsed() >= self.orphan_timeout {
                    let seconds = self.orphan_timeout.as_secs();
                    let last = self.last_failure.as_deref().unwrap_or("the link was lost");
                    return LinkEvent::Orphaned(format!("no agent has answered for {seconds} s: {last}"));
                }
                LinkEvent::DialNow
            }
            State::Dialling(dialled) => {
                let dialled = dialled.await;
                self.dialled(dialled)
            }
            State::Up(session) => match session.next().await {
                Ok(message) => {
                    self.answered = session.reader.heard();
                    message.map_or(LinkEvent::Nothing, LinkEvent::Message)
                }
                Err(reason) => {
                    tracing::warn!("the link to the agent is lost: {reason}");
                    self.down();
                    LinkEvent::Down
                }
            },
        }
    }

    /// A further message, if it has been received already.
    pub(crate) fn received(&mut self) -> Option<ToWorker> {
        let State::Up(session) = &mut self.state else {
            return None;
        };
        // An error here comes again when the next message is waited for.
        session.reader.next_received().ok().flatten()
    }

    /// Writes what is queued and closes the link.
    pub(crate) async fn close(mut self, patience: Duration) {
        if let State::Up(session) = &mut self.state {
            // If the agent does not take it, its results are in the next hello's place: nowhere, and it knows.
            let _ = timeout(patience, session.writer.close()).await;
        }
    }

    fn dialled(&mut self, dialled: Dialled) -> LinkEvent {
        match dialled {
            Dialled::Welcome {
                address,
                reader,
                writer,
                result_credit,
            } => {
                let now = Instant::now();
                let mut pulse = interval(PULSE);
                pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.answered = now;
                self.backoff.reset();
                self.last_failure = None;
                self.state = State::Up(Box::new(Session {
                    reader,
                    writer,
                    said: now,
                    pulse,
                }));
                if let State::Up(session) = &mut self.state {
                    session.reader.set_limits(Limits::TRUSTED);
                }
                tracing::info!("connected to the agent at {address}");
                LinkEvent::Up { result_credit }
            }
            Dialled::Refused { code, text } if code.is_final() => {
                LinkEvent::Refused(format!("the agent refuses this worker ({}): {text}", name(code)))
            }
            Dialled::Refused { code, text } => {
                tracing::debug!("the agent refuses this worker for now ({}): {text}", name(code));
                self.answered = Instant::now();
                self.wait();
                LinkEvent::Nothing
            }
            Dialled::Failed(reason) => {
                self.unanswered(&reason);
                self.wait();
                LinkEvent::Nothing
            }
        }
    }

    /// The first failure and each that is another is worth a line; a stream of equal ones is not.
    fn unanswered(&mut self, reason: &str) {
        if self.last_failure.as_deref() == Some(reason) {
            tracing::debug!("the agent does not answer: {reason}");
        } else {
            tracing::warn!("the agent does not answer, dialling goes on: {reason}");
            self.last_failure = Some(reason.to_owned());
        }
    }

    fn down(&mut self) {
        self.down_since = Instant::now();
        self.wait();
    }

    fn wait(&mut self) {
        let pause = self.backoff.next(self.down_since.elapsed());
        self.state = State::Waiting(Box::pin(sleep(pause)));
    }
}

impl Session {
    fn push(&mut self, message: &ToAgent) -> Result<(), CodecError> {
        self.writer.push(message)?;
        self.said = Instant::now();
        Ok(())
    }

    /// The next message, `None` for a heartbeat, or why there is none.
    async fn next(&mut self) -> Result<Option<ToWorker>, String> {
        loop {
            tokio::select! {
                message = self.reader.next() => {
                    return match message {
                        Ok(Some(ToWorker::Heartbeat)) => Ok(None),
                        Ok(Some(message)) => Ok(Some(message)),
                        Ok(None) => Err("the agent closed it".to_owned()),
                        Err(error) => Err(error.to_string()),
                    };
                }
                written = self.writer.write_some(), if !self.writer.is_idle() => {
                    written.map_err(|error| error.to_string())?;
                }
                now = self.pulse.tick() => {
                    if now.duration_since(self.reader.heard()) >= DEAD_AFTER {
                        return Err(format!("nothing came for {} s", DEAD_AFTER.as_secs()));
                    }
                    // Also while a large result is written: this overtakes what is left of it.
                    if now.duration_since(self.said) >= HEARTBEAT {
                        self.push(&ToAgent::Heartbeat).map_err(|error| error.to_string())?;
                    }
                }
            }
        }
    }
}

fn name(code: HelloRefusal) -> &'static str {
    match code {
        HelloRefusal::NotMe => "it stands by for another",
        HelloRefusal::AlreadyConnected => "another connection uses the token",
        HelloRefusal::Version => "link version",
        HelloRefusal::Token => "token",
        HelloRefusal::Unwanted => "the block is not wanted",
    }
}
