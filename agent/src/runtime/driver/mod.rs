//! The loop: inputs to the engine, its outputs carried out.

mod begin;
mod clock;
mod events;
mod show;
mod stop;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use endpoint_provider::{ListError, Provider, ProviderEvent};
use endpoint_telemetry::{self as telemetry, Share};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use waypost_engine::{BlockId, Engine, EntryId, Input, JournalRecord, Output, Time, WorkerId};

use super::blocks;
use super::environment::Place;
use super::failure::Composer;
use super::heartbeat::{Heartbeats, Idleness};
use super::memory::Ebb;
use super::observer::Observer;
use super::status::UserEndpointStatus;
use super::{Command, Ended, Environment, Specification, settings};
use crate::broker::Broker;
use crate::hub::{HubEvent, Registration, WorkerHandle};
use crate::journal::Journal;
use clock::Clock;
use show::HeldBytes;
use stop::Stopping;

/// Batches of workers' messages that wait for the loop; beyond, sessions stop reading.
const HUB_EVENTS_MAX: usize = 64;

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
    refused_share: Share<telemetry::Refused>,
    provider: Box<dyn Provider>,
    provider_events: mpsc::UnboundedReceiver<ProviderEvent>,
    registration: Registration,
    hub_events: mpsc::Receiver<HubEvent>,
    workers: BTreeMap<WorkerId, Worker>,
    observer: Observer,
    ebb: Ebb,
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

struct Worker {
    handle: WorkerHandle,
    block: BlockId,
    python_version: String,
    sdk_version: String,
}

impl Driver {
    /// Restores what an earlier life left: the journal, then the blocks. Then lets workers in, and only then begins to
    /// connect to the broker.
    pub(super) async fn start(
        mut specification: Specification,
        environment: Arc<Environment>,
        status: watch::Sender<UserEndpointStatus>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<Self, Ended> {
        let clock = Clock::start();
        let directory = &specification.directory;
        std::fs::create_dir_all(settings::local_directory(&specification.config.engine, directory))
            .map_err(|error| Ended::Failed(format!("its folder {} can not be made: {error}", directory.display())))?;
        let mut place = environment.take_place();
        let shared = environment.settings();
        let opened = open_journal(directory, clock.now()).await;
        let (journal, records) = opened.map_err(Ended::Failed)?;
        let (mut engine, engine_settings) =
            engine(&specification, &environment, &mut place, 0).map_err(Ended::Failed)?;
        let window = u16::try_from(engine_settings.prefetch.initial).unwrap_or(u16::MAX);
        let slots_per_block = engine_settings.slots_per_block;
        engine.restore(clock.now(), records);

        let (provider_sender, provider_events) = mpsc::unbounded_channel();
        let made = blocks::provider(&specification, &environment, provider_sender);
        let mut provider = made.map_err(Ended::Failed)?;
        let doubt = begin::check(provider.as_mut(), &mut specification, commands).await?;
        let blocks = begin::list(provider.as_mut(), &mut specification, &status, commands).await?;
        engine.handle(clock.now(), Input::BlocksListed { blocks });

        let (hub_sender, hub_events) = mpsc::channel(HUB_EVENTS_MAX);
        let names = blocks::names(&specification, &environment);
        let registration = environment.hub().register(names.clone(), hub_sender);
        let name = format!("waypost {}", specification.name);
        let broker = Broker::new(specification.credentials.clone(), name, window);
        let config = &specification.config;
        let heartbeats = Heartbeats::new(
            specification.id,
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
            refused_share: shared.metrics.credentials_refused.share(),
            provider,
            provider_events,
            registration,
            hub_events,
            workers: BTreeMap::new(),
            ebb: Ebb::default(),
            observer: Observer::new(names, Arc::clone(&shared.metrics)),
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
        if let Some(doubt) = doubt {
            driver.observer.note_error(doubt);
        }
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
                () = self.place.changed() => {
                    let bytes = self.place.held_bytes();
                    self.input(Input::HeldBytesAllowed { bytes });
                }
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
            for (block, busy) in self.observer.busy_changes() {
                self.provider.busy(block, busy);
            }
            self.keep_house();
            self.leave_results();
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

    /// The queue is ours again after another agent had it: everything begins as at a start, from the journal and the
    /// blocks that exist now. If those can not be listed, whoever can shall have the queue.
    async fn begin_again(&mut self) -> Result<(), ListError> {
        let blocks = self.provider.list().await?;
        self.generation += 1;
        self.workers.clear();
        self.journalled = None;
        match engine(&self.specification, &self.environment, &mut self.place, self.generation) {
            Ok((engine, _)) => self.engine = engine,
            // It was made of the same settings before.
            Err(error) => self.observer.note_error(error),
        }
        match open_journal(&self.specification.directory, self.clock.now()).await {
            Ok((journal, records)) => {
                self.journal = journal;
                self.engine.restore(self.clock.now(), records);
            }
            Err(error) => self.observer.note_error(error),
        }
        self.observer.forget();
        self.input(Input::BlocksListed { blocks });
        self.input(Input::PublisherStarted);
        Ok(())
    }
}

/// The block names of a life must be those of no other. An agent that lost its queue and has it again begins another.
const GENERATIONS: u64 = 1000;

fn engine(
    specification: &Specification,
    environment: &Environment,
    place: &mut Place,
    generation: u64,
) -> Result<(Engine, waypost_engine::Settings), String> {
    let epoch = environment.settings().epoch * GENERATIONS + generation;
    let settings = settings::engine(&specification.config, epoch, place.held_bytes())?;
    let composer = Composer {
        names: blocks::names(specification, environment),
        endpoint_id: specification.endpoint_id,
    };
    let engine = Engine::new(settings.clone(), rand::random(), Box::new(composer));
    Ok((engine, settings))
}

async fn open_journal(directory: &Path, now: Time) -> Result<(Journal, Vec<JournalRecord>), String> {
    let folder = directory.join("journal");
    let opened = tokio::task::spawn_blocking(move || Journal::open(&folder, now)).await;
    opened
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
