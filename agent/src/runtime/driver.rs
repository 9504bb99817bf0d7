//! The loop: inputs to the engine, its outputs carried out.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use waypost_engine::{
    ChannelEpoch, DeliveryTag, Drain, Engine, EntryId, Input, JournalRecord, Output, PublishId, Time, WorkerId,
};

use super::failure::{Composer, not_allowed};
use super::heartbeat::{Heartbeats, Idleness, Node};
use super::observer::Observer;
use super::status::{UserEndpointState, UserEndpointStatus};
use super::{Command, Ended, Environment, Specification, Stop, environment::Place, settings};
use crate::broker::{self, Broker, BrokerState};
use crate::config::ProviderConfig;
use crate::hub::{HubEvent, Registration, WorkerHandle};
use crate::journal::Journal;
use crate::provider::local::{LocalProvider, LocalSettings};
use crate::provider::{Provider, ProviderEvent};
use crate::telemetry::{self, Share, TaskOutcome};

/// Batches of workers' messages that wait for the loop; beyond, sessions stop reading.
const HUB_EVENTS_MAX: usize = 64;
/// The status is told at most this often.
const STATUS_PERIOD: Duration = Duration::from_millis(100);
/// How long a hand-over may take to flush results, and a stop to end its blocks beyond the grace for running tasks.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(25);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Publishes of our own have ids that the engine's never reach.
const OWN_PUBLISHES: u64 = 1 << 63;

/// One running user endpoint.
pub(super) struct Driver {
    specification: Specification,
    environment: Arc<Environment>,
    place: Place,
    clock: Clock,
    engine: Engine,
    journal: Journal,
    journalled: Option<EntryId>,
    broker: Broker,
    broker_share: Share<telemetry::Connection>,
    provider: Box<dyn Provider>,
    provider_events: mpsc::UnboundedReceiver<ProviderEvent>,
    registration: Registration,
    hub_events: mpsc::Receiver<HubEvent>,
    workers: BTreeMap<WorkerId, Worker>,
    refusals: BTreeMap<PublishId, DeliveryTag>,
    next_refusal: u64,
    observer: Observer,
    held_bytes: HeldBytes,
    heartbeats: Heartbeats,
    idleness: Idleness,
    deadline: Option<Time>,
    timer: Pin<Box<Sleep>>,
    next_heartbeat: Instant,
    next_status: Option<Instant>,
    status: watch::Sender<UserEndpointStatus>,
    fenced: bool,
    generation: u64,
    stopping: Option<Stopping>,
    drained: bool,
}

/// This user endpoint's part of the gauge of held bytes.
struct HeldBytes {
    metrics: Arc<telemetry::Metrics>,
    part: i64,
}

impl HeldBytes {
    const fn new(metrics: Arc<telemetry::Metrics>) -> Self {
        Self { metrics, part: 0 }
    }

    fn set(&mut self, bytes: u64) {
        let part = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.held_bytes.add(part - self.part);
        self.part = part;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

struct Worker {
    handle: WorkerHandle,
    block: waypost_engine::BlockId,
    python_version: String,
    sdk_version: String,
}

struct Stopping {
    how: Stop,
    idle: bool,
    until: Instant,
}

/// The wall clock, read once, and the monotonic clock since.
#[derive(Debug, Clone, Copy)]
struct Clock {
    wall: u64,
    begun: Instant,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            wall: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            begun: Instant::now(),
        }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.wall) + self.begun.elapsed()
    }

    fn instant(&self, at: Time) -> Instant {
        self.begun + at.since(Time::from_micros(self.wall))
    }
}

impl Driver {
    /// Restores what an earlier life left: the journal, then the blocks. Then lets workers in, and only then begins to
    /// connect to the broker. The error is a sentence.
    pub(super) async fn start(
        specification: Specification,
        environment: Arc<Environment>,
        status: watch::Sender<UserEndpointStatus>,
    ) -> Result<Self, String> {
        let clock = Clock::start();
        let Specification {
            id,
            ref config,
            ref directory,
            ..
        } = specification;
        std::fs::create_dir_all(settings::working_directory(&config.engine, directory)).map_err(|error| {
            format!(
                "its working directory in {} can not be made: {error}",
                directory.display()
            )
        })?;
        let place = environment.take_place();
        let shared = environment.settings();
        let (journal, records) = open_journal(directory, clock.now()).await?;
        let (mut engine, engine_settings) = engine(&specification, &environment, &place, 0);
        let window = u16::try_from(engine_settings.prefetch.initial).unwrap_or(u16::MAX);
        let slots_per_block = engine_settings.slots_per_block;
        engine.restore(clock.now(), records);

        let (provider_sender, provider_events) = mpsc::unbounded_channel();
        let mut provider = provider(&specification, &environment, provider_sender);
        let blocks = provider.list().await.map_err(|error| error.to_string())?;
        engine.handle(clock.now(), Input::BlocksListed { blocks });

        let (hub_sender, hub_events) = mpsc::channel(HUB_EVENTS_MAX);
        let registration = environment.hub().register(id, hub_sender);
        let name = format!("waypost {}", specification.name);
        let broker = Broker::new(specification.credentials.clone(), name, window);
        let heartbeats = Heartbeats::new(
            id,
            shared.endpoint_version.clone(),
            config,
            &specification.config_text,
            slots_per_block,
        );
        let mut driver = Self {
            place,
            clock,
            engine,
            journal,
            journalled: None,
            broker,
            broker_share: shared.metrics.broker_connections.share(),
            provider,
            provider_events,
            registration,
            hub_events,
            workers: BTreeMap::new(),
            refusals: BTreeMap::new(),
            next_refusal: OWN_PUBLISHES,
            observer: Observer::new(id, Arc::clone(&shared.metrics)),
            held_bytes: HeldBytes::new(Arc::clone(&shared.metrics)),
            heartbeats,
            idleness: Idleness::new(config, specification.saved),
            deadline: None,
            timer: Box::pin(sleep_until(Instant::now())),
            next_heartbeat: Instant::now() + config.base.heartbeat_period,
            next_status: Some(Instant::now()),
            status,
            fenced: false,
            generation: 0,
            stopping: None,
            drained: false,
            specification,
            environment,
        };
        driver.carry_out();
        driver.write_journal();
        Ok(driver)
    }

    /// Runs until it has ended.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> Ended {
        let mut broker_events = Vec::new();
        let mut hub_batch = Vec::new();
        loop {
            let housekeeping = self.next_housekeeping();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    // Whoever held the handle is gone without a word: end as by a kill.
                    None => return Ended::Stopped,
                },
                () = self.broker.next(&mut broker_events) => {}
                _ = self.hub_events.recv_many(&mut hub_batch, HUB_EVENTS_MAX) => {}
                Some(event) = self.provider_events.recv() => self.provider_event(event),
                () = self.timer.as_mut(), if self.deadline.is_some() => {
                    self.deadline = None;
                    self.input(Input::Timeout);
                }
                () = sleep_until(housekeeping) => {}
            }
            for event in broker_events.drain(..) {
                self.broker_event(event).await;
            }
            for event in hub_batch.drain(..) {
                self.hub_event(event);
            }
            self.write_journal();
            self.keep_house();
            if let Some(ended) = self.is_over() {
                self.finish(&ended).await;
                return ended;
            }
        }
    }

    /// Gives the engine an input, and carries out what it wants.
    fn input(&mut self, input: Input) {
        self.engine.handle(self.clock.now(), input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Send { worker, message } => {
                    if let Some(worker) = self.workers.get(&worker) {
                        worker.handle.send(message);
                    }
                }
                Output::Publish { publish, task: _, body } => self.broker.publish(publish, body),
                Output::Ack { tag, multiple } => self.broker.ack(tag, multiple),
                Output::GiveBack { tag } | Output::Refresh { tag } => self.broker.give_back(tag),
                Output::SetPrefetch { window } => {
                    self.broker.set_prefetch(u16::try_from(window).unwrap_or(u16::MAX));
                }
                Output::StopConsuming => self.broker.set_prefetch(0),
                Output::AskQueueDepth => self.broker.ask_depth(),
                Output::Journal { entry, record } => {
                    self.journal.append(&record);
                    self.journalled = Some(entry);
                }
                Output::StartBlock { block } => self.provider.start(block),
                Output::DeleteBlock { block } => self.provider.delete(block),
                Output::Event(event) => {
                    self.observer.observe(self.clock.now(), event);
                    self.touch_status();
                }
                Output::Drained => self.drained = true,
                Output::Deadline { at, reason: _ } => {
                    if self.deadline != Some(at) {
                        self.deadline = Some(at);
                        self.timer.as_mut().reset(self.clock.instant(at));
                    }
                    return;
                }
                Output::Idle => {
                    self.deadline = None;
                    return;
                }
            }
        }
    }

    /// Writes what the turn has brought to the journal, and what that brings in turn.
    fn write_journal(&mut self) {
        while let Some(through) = self.journalled.take() {
            let outcome = self.journal.write(self.clock.now());
            if let Err(error) = &outcome {
                tracing::error!(%error, user_endpoint = %self.specification.name, "the journal can not be written");
                self.observer.note_error(error.to_string());
            }
            self.input(Input::Journalled {
                through,
                written: outcome.is_ok(),
            });
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Stop(how) => self.stop(how, false),
            Command::ReplaceCredentials(credentials) => {
                self.broker.replace_credentials(*credentials);
                self.touch_status();
            }
        }
    }

    fn stop(&mut self, how: Stop, idle: bool) {
        let (drain, timeout) = match how {
            Stop::HandOver => (Drain::HandOver, HAND_OVER_TIMEOUT),
            Stop::Drain => (Drain::Stop, STOP_TIMEOUT + settings::STOP_GRACE),
        };
        // Only from a hand-over to a drain is there a way further.
        if self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.how == how || stopping.how == Stop::Drain)
        {
            return;
        }
        tracing::info!(user_endpoint = %self.specification.name, ?how, "the user endpoint is being stopped");
        self.stopping = Some(Stopping {
            how,
            idle,
            until: Instant::now() + timeout,
        });
        self.drained = false;
        self.touch_status();
        self.input(Input::Drain(drain));
    }

    async fn broker_event(&mut self, event: broker::Event) {
        match event {
            broker::Event::Delivery(delivery) => self.delivery(delivery),
            broker::Event::Published { publish, outcome } => match self.refusals.remove(&publish) {
                Some(tag) => self.refused(tag, outcome),
                None => self.input(Input::PublishOutcome { publish, outcome }),
            },
            broker::Event::Connected => {
                self.observer.clear_broker_error();
                self.broker_share.set(telemetry::Connection::Tasks, 1);
                self.touch_status();
                self.send_heartbeat(true);
                self.input(Input::PublisherStarted);
            }
            broker::Event::Consuming { channel } => {
                self.touch_status();
                if std::mem::take(&mut self.fenced) {
                    self.begin_again().await;
                }
                self.registration.set_open(true);
                tracing::info!(user_endpoint = %self.specification.name, channel, "consuming tasks");
                self.input(Input::ConsumerStarted {
                    channel: ChannelEpoch(channel),
                });
            }
            broker::Event::Standby => {
                tracing::warn!(user_endpoint = %self.specification.name, "another agent consumes the tasks: standing by");
                self.touch_status();
                self.registration.set_open(false);
                self.fenced = true;
                self.input(Input::Fenced);
            }
            broker::Event::Lost { channel, reason } => self.broker_lost(channel, reason),
            broker::Event::Refused(why) => {
                tracing::error!(user_endpoint = %self.specification.name, %why, "the broker refuses the credentials");
                self.observer
                    .note_error(format!("the broker refuses the credentials: {why}"));
                self.touch_status();
            }
            broker::Event::Malformed(why) => {
                tracing::warn!(user_endpoint = %self.specification.name, %why, "a message that is no task was rejected");
                self.environment
                    .settings()
                    .metrics
                    .task_results
                    .increment(TaskOutcome::Refused);
            }
            broker::Event::Depth { ready } => {
                self.input(Input::QueueDepth {
                    ready: Some(u64::from(ready)),
                });
            }
            broker::Event::DepthRefused => self.input(Input::QueueDepth { ready: None }),
        }
    }

    fn broker_lost(&mut self, channel: Option<u64>, reason: broker::BrokerError) {
        if !matches!(reason, broker::BrokerError::Refused(_)) {
            tracing::warn!(user_endpoint = %self.specification.name, %reason, "the broker is not connected");
            self.observer.note_broker_error(reason.to_string());
        }
        self.environment
            .settings()
            .metrics
            .broker_reconnects
            .increment(telemetry::Connection::Tasks);
        self.broker_share.set(telemetry::Connection::Tasks, 0);
        self.refusals.clear();
        self.touch_status();
        self.input(Input::PublisherLost);
        if let broker::BrokerError::ConsumerTimeout { limit } = reason {
            self.input(Input::ConsumerTimeout { timeout: limit });
        }
        if let Some(channel) = channel {
            self.input(Input::ConsumerLost {
                channel: ChannelEpoch(channel),
            });
        }
    }

    fn delivery(&mut self, delivery: waypost_engine::Delivery) {
        let allowed = self.specification.config.base.allowed_functions.as_ref();
        if allowed.is_some_and(|allowed| !allowed.contains(&delivery.function.0)) {
            let publish = PublishId(self.next_refusal);
            self.next_refusal += 1;
            let at = i64::try_from(self.clock.now().as_micros())
                .unwrap_or(i64::MAX)
                .saturating_mul(1000);
            let (task, function) = (delivery.task, delivery.function.0);
            tracing::warn!(%task, %function, "task refused: its function is not allowed here");
            self.environment
                .settings()
                .metrics
                .task_results
                .increment(TaskOutcome::Refused);
            self.refusals.insert(publish, delivery.tag);
            self.broker
                .publish(publish, not_allowed(task, function, self.specification.endpoint_id, at));
            return;
        }
        self.input(Input::Delivery(delivery));
    }

    /// What became of the result that says that a function is not allowed.
    fn refused(&mut self, tag: DeliveryTag, outcome: waypost_engine::PublishOutcome) {
        if outcome == waypost_engine::PublishOutcome::Confirmed {
            self.broker.ack(tag, false);
        } else {
            self.broker.give_back(tag);
        }
    }

    /// The queue is ours again after another agent had it: everything begins as at a start, from the journal and the
    /// blocks that exist now.
    async fn begin_again(&mut self) {
        self.generation += 1;
        self.workers.clear();
        self.journalled = None;
        let (mut engine, _) = engine(&self.specification, &self.environment, &self.place, self.generation);
        match open_journal(&self.specification.directory, self.clock.now()).await {
            Ok((journal, records)) => {
                self.journal = journal;
                engine.restore(self.clock.now(), records);
            }
            Err(error) => self.observer.note_error(error),
        }
        self.engine = engine;
        self.observer.forget();
        let blocks = match self.provider.list().await {
            Ok(blocks) => blocks,
            Err(error) => {
                self.observer.note_error(error.to_string());
                Vec::new()
            }
        };
        self.input(Input::BlocksListed { blocks });
        self.input(Input::PublisherStarted);
    }

    fn hub_event(&mut self, event: HubEvent) {
        match event {
            HubEvent::Said(inputs) => {
                for input in inputs {
                    self.input(input);
                }
            }
            HubEvent::Hello {
                worker,
                block,
                slots,
                held,
                python_version,
                sdk_version,
            } => {
                let id = worker.id;
                self.workers.insert(
                    id,
                    Worker {
                        handle: worker,
                        block,
                        python_version,
                        sdk_version,
                    },
                );
                self.input(Input::WorkerHello {
                    worker: id,
                    block,
                    slots,
                    held,
                });
            }
            HubEvent::Lost { worker, why } => {
                if self.workers.remove(&worker).is_some() {
                    tracing::debug!(%worker, %why, "a worker's session is over");
                    self.input(Input::WorkerLost { worker });
                }
            }
        }
    }

    fn provider_event(&mut self, event: ProviderEvent) {
        let input = match event {
            ProviderEvent::Started { block, outcome } => Input::BlockStarted { block, outcome },
            ProviderEvent::Deleted { block, done } => Input::BlockDeleted { block, done },
            ProviderEvent::Observed { block, state } => Input::BlockObserved { block, state },
        };
        self.input(input);
    }

    fn touch_status(&mut self) {
        if self.next_status.is_none() {
            self.next_status = Some(Instant::now() + STATUS_PERIOD);
        }
    }

    fn next_housekeeping(&self) -> Instant {
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        [self.next_status, stop]
            .into_iter()
            .flatten()
            .fold(self.next_heartbeat, Instant::min)
    }

    fn keep_house(&mut self) {
        let now = Instant::now();
        if self.next_status.is_some_and(|at| at <= now) {
            self.next_status = None;
            self.tell_status(None);
        }
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + self.specification.config.base.heartbeat_period;
            self.send_heartbeat(true);
            let figures = self.observer.figures();
            if self.idleness.beat(&figures) && self.stopping.is_none() {
                tracing::info!(user_endpoint = %self.specification.name, "the user endpoint has been idle for long enough");
                self.stop(Stop::Drain, true);
                self.write_journal();
            }
        }
    }

    fn send_heartbeat(&mut self, active: bool) {
        let now = self.clock.now();
        let nodes: Vec<Node> = self
            .observer
            .connected(now)
            .map(|(id, block, slots, idle)| {
                let worker = self.workers.values().find(|worker| worker.block == id);
                Node {
                    block,
                    slots,
                    idle,
                    python_version: worker.map_or_else(String::new, |worker| worker.python_version.clone()),
                    sdk_version: worker.map_or_else(String::new, |worker| worker.sdk_version.clone()),
                }
            })
            .collect();
        let body = self.heartbeats.compose(&self.observer.figures(), &nodes, active);
        self.broker.heartbeat(body);
    }

    fn tell_status(&mut self, ended: Option<&Ended>) {
        let figures = self.observer.figures();
        let now = self.clock.now();
        let broker = self.broker.state();
        let state = match (ended, &self.stopping, broker) {
            (Some(_), _, _) => UserEndpointState::Ended,
            (None, Some(_), _) => UserEndpointState::Stopping,
            (None, None, BrokerState::Consuming) => UserEndpointState::Running,
            (None, None, BrokerState::Standby) => UserEndpointState::Standby,
            (None, None, BrokerState::Refused) => UserEndpointState::WaitingForCredentials,
            (None, None, BrokerState::Connecting | BrokerState::Closed) => UserEndpointState::Disconnected,
        };
        let (blocks, last_error) = (self.observer.blocks(), self.observer.last_error());
        let engine = self.engine.status(now);
        self.held_bytes.set(engine.held_bytes);
        self.status.send_modify(|status| {
            status.state = state;
            status.broker = broker;
            status.blocks = blocks;
            status.slots = figures.slots;
            status.tasks_waiting = figures.waiting + engine.queue_depth;
            status.tasks_running = figures.running;
            status.tasks_held = figures.held;
            status.bytes_held = engine.held_bytes;
            status.tasks_settled = figures.settled;
            status.oldest_wait_ms = engine
                .oldest_wait
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            status.last_error = last_error;
        });
        // How long the oldest has waited changes by itself.
        if figures.waiting > 0 && ended.is_none() {
            self.next_status = Some(Instant::now() + Duration::from_secs(1));
        }
    }

    /// Whether there is nothing left to do, or no time for it.
    fn is_over(&self) -> Option<Ended> {
        let stopping = self.stopping.as_ref()?;
        let timed_out = stopping.until <= Instant::now();
        if timed_out {
            tracing::warn!(user_endpoint = %self.specification.name, how = ?stopping.how, "the stop took too long and is cut short");
        }
        let ended = if stopping.idle { Ended::Idle } else { Ended::Stopped };
        (timed_out || (self.drained && self.broker.is_flushed())).then_some(ended)
    }

    async fn finish(&mut self, ended: &Ended) {
        self.send_heartbeat(false);
        self.broker.close().await;
        self.tell_status(Some(ended));
    }
}

/// The block names of a life must be those of no other. An agent that lost its queue and has it again begins another.
const GENERATIONS: u64 = 1000;

fn engine(
    specification: &Specification,
    environment: &Environment,
    place: &Place,
    generation: u64,
) -> (Engine, waypost_engine::Settings) {
    let epoch = environment.settings().epoch * GENERATIONS + generation;
    let settings = settings::engine(&specification.config, epoch, place.held_bytes());
    let composer = Composer {
        user_endpoint: specification.id,
    };
    (
        Engine::new(settings.clone(), rand::random(), Box::new(composer)),
        settings,
    )
}

async fn open_journal(directory: &Path, now: Time) -> Result<(Journal, Vec<JournalRecord>), String> {
    let folder = directory.join("journal");
    let opened = tokio::task::spawn_blocking(move || Journal::open(&folder, now)).await;
    opened
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn provider(
    specification: &Specification,
    environment: &Environment,
    events: mpsc::UnboundedSender<ProviderEvent>,
) -> Box<dyn Provider> {
    let Specification {
        id, config, directory, ..
    } = specification;
    let (hub, shared) = (environment.hub(), environment.settings());
    match &config.engine.provider {
        ProviderConfig::Local(local) => Box::new(LocalProvider::new(
            LocalSettings {
                user_endpoint: *id,
                directory: directory.clone(),
                worker_init: local.worker_init.clone(),
                worker: settings::worker_command(&config.engine, &shared.worker, &hub.address(), *id, directory),
                environment: config.environment.clone(),
                token: hub.token_maker(*id),
            },
            events,
        )),
    }
}
