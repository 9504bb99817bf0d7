//! The user endpoints that run in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint_config::UserEndpointConfig;
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use waypost_protocol::AmqpCredentials;

use super::shell::run_shell;
use super::status::Board;
use crate::runtime::{Ended, Environment, Specification, Stop, UserEndpoint, UserEndpointState};
use crate::state::SavedUserEndpoint;

/// What happened to a user endpoint.
#[derive(Debug)]
pub(crate) struct Event {
    /// Which one.
    pub(crate) name: String,
    /// Which start of it; an older one's end is no news.
    generation: u64,
    /// What.
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// `endpoint_setup` has run, well or not.
    SetUp(Result<(), String>),
    /// It has ended.
    Ended(Ended),
}

/// A user endpoint that ended.
pub(crate) struct Over {
    pub(crate) saved: SavedUserEndpoint,
    pub(crate) how: Ended,
    /// Whether a command for it came so late that the tasks that it announced have not been seen.
    pub(crate) missed_command: bool,
}

struct Hosted {
    saved: SavedUserEndpoint,
    config: UserEndpointConfig,
    directory: PathBuf,
    restored: bool,
    running: Option<Arc<UserEndpoint>>,
    generation: u64,
    last_command: Instant,
    /// Whether a command came when it was ending already.
    commanded_at_end: bool,
}

impl Hosted {
    /// Tasks follow their command at once. An idle user endpoint decides to end when nothing has moved for the whole
    /// of its idle time; so a command that is younger than half of that time was for tasks that it has not seen.
    fn missed_command(&self, grace: Duration) -> bool {
        let idle_time = self.config.base.heartbeat_period * self.config.idle_heartbeats_soft;
        self.commanded_at_end || self.last_command.elapsed() < grace.min(idle_time / 2)
    }
}

/// Waits until it is said how to stop.
pub(super) async fn told(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    let how = stop.wait_for(Option::is_some).await.map_or(None, |how| *how);
    how.unwrap_or(Stop::Drain)
}

/// Whether a user endpoint is only handed over to the next agent, so that nothing of it is to be torn down.
pub(super) fn lives_on(config: &UserEndpointConfig, how: Stop) -> bool {
    match how {
        Stop::HandOver => true,
        Stop::Drain => false,
        Stop::Terminate => config.engine.provider.outlives_agent(),
    }
}

/// All of them, by name.
pub(crate) struct Host {
    environment: Arc<Environment>,
    board: Arc<Board>,
    base: PathBuf,
    endpoint_id: Uuid,
    hosted: BTreeMap<String, Hosted>,
    generations: u64,
    events: mpsc::UnboundedSender<Event>,
}

impl Host {
    /// Hosts user endpoints of `endpoint_id`, each with a folder in `base`.
    pub(crate) fn new(
        environment: Arc<Environment>,
        board: Arc<Board>,
        base: PathBuf,
        endpoint_id: Uuid,
    ) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let host = Self {
            environment,
            board,
            base,
            endpoint_id,
            hosted: BTreeMap::new(),
            generations: 0,
            events,
        };
        (host, receiver)
    }

    pub(crate) fn len(&self) -> usize {
        self.hosted.len()
    }

    /// Starts one; `restored` if it ran before the process started.
    pub(crate) fn start(&mut self, saved: SavedUserEndpoint, config: UserEndpointConfig, restored: bool) {
        self.generations += 1;
        let name = saved.name.clone();
        let hosted = Hosted {
            directory: self.base.join(&name),
            saved,
            config,
            restored,
            running: None,
            generation: self.generations,
            last_command: Instant::now(),
            commanded_at_end: false,
        };
        let setup = hosted.config.endpoint_setup.clone();
        let directory = hosted.directory.clone();
        let generation = hosted.generation;
        self.hosted.insert(name.clone(), hosted);
        self.environment
            .settings()
            .metrics
            .user_endpoints
            .set(i64::try_from(self.hosted.len()).unwrap_or(i64::MAX));
        // What runs already has been set up.
        let Some(setup) = setup.filter(|_| !restored) else {
            self.run(&name);
            return;
        };
        let events = self.events.clone();
        tokio::spawn(async move {
            let done = match std::fs::create_dir_all(&directory) {
                Ok(()) => run_shell("endpoint_setup", &setup, &directory).await,
                Err(error) => Err(format!("{} can not be made: {error}", directory.display())),
            };
            let _ = events.send(Event {
                name,
                generation,
                what: What::SetUp(done),
            });
        });
    }

    fn run(&mut self, name: &str) {
        let Some(hosted) = self.hosted.get_mut(name) else {
            return;
        };
        let endpoint = Arc::new(UserEndpoint::start(
            Specification {
                id: hosted.saved.credentials.endpoint_id,
                name: name.to_owned(),
                endpoint_id: self.endpoint_id,
                directory: hosted.directory.clone(),
                config: hosted.config.clone(),
                config_text: hosted.saved.config.clone(),
                credentials: hosted.saved.credentials.clone(),
                saved: hosted.restored,
            },
            Arc::clone(&self.environment),
        ));
        self.board.add(name, endpoint.status());
        hosted.running = Some(Arc::clone(&endpoint));
        let (events, name, generation) = (self.events.clone(), name.to_owned(), hosted.generation);
        tokio::spawn(async move {
            let how = endpoint.ended().await;
            let _ = events.send(Event {
                name,
                generation,
                what: What::Ended(how),
            });
        });
    }

    /// Gives one that runs newer credentials. `None` if it does not run; else what is to be saved of it now.
    pub(crate) fn refresh(&mut self, name: &str, credentials: &AmqpCredentials) -> Option<&SavedUserEndpoint> {
        let hosted = self.hosted.get_mut(name)?;
        hosted.last_command = Instant::now();
        hosted.saved.credentials.clone_from(credentials);
        if let Some(running) = &hosted.running {
            let state = running.status().borrow().state;
            hosted.commanded_at_end = matches!(state, UserEndpointState::Stopping | UserEndpointState::Ended);
            running.replace_credentials(credentials.clone());
        }
        Some(&hosted.saved)
    }

    /// Takes note of an event. Gives the user endpoint if it is over. `grace` bounds the time in which a command may
    /// have been missed.
    pub(crate) fn handle(&mut self, event: Event, grace: Duration) -> Option<Over> {
        self.hosted
            .get(&event.name)
            .filter(|hosted| hosted.generation == event.generation)?;
        let how = match event.what {
            What::SetUp(Ok(())) => {
                self.run(&event.name);
                return None;
            }
            What::SetUp(Err(error)) => Ended::Failed(error),
            What::Ended(how) => how,
        };
        let hosted = self.hosted.remove(&event.name)?;
        let missed_command = hosted.missed_command(grace);
        self.board.remove(&event.name);
        self.environment
            .settings()
            .metrics
            .user_endpoints
            .set(i64::try_from(self.hosted.len()).unwrap_or(i64::MAX));
        if let Some(teardown) = hosted.config.endpoint_teardown.filter(|_| hosted.running.is_some()) {
            let directory = hosted.directory;
            tokio::spawn(async move {
                if let Err(error) = run_shell("endpoint_teardown", &teardown, &directory).await {
                    tracing::error!(error, "the user endpoint was not torn down");
                }
            });
        }
        Some(Over {
            saved: hosted.saved,
            how,
            missed_command,
        })
    }

    /// Ends all of them and waits until they have ended.
    pub(crate) async fn stop(&mut self, how: Stop) {
        let stops = self.hosted.iter().map(|(name, hosted)| async move {
            if let Some(running) = &hosted.running {
                let ended = running.stop(how).await;
                tracing::info!(user_endpoint = name, ?ended, "the user endpoint has ended");
                if !lives_on(&hosted.config, how)
                    && let Some(teardown) = &hosted.config.endpoint_teardown
                    && let Err(error) = run_shell("endpoint_teardown", teardown, &hosted.directory).await
                {
                    tracing::error!(user_endpoint = name, error, "the user endpoint was not torn down");
                }
            }
        });
        join_all(stops).await;
        self.hosted.clear();
    }
}
