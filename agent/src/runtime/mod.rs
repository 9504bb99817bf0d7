//! One user endpoint: the loop that feeds inputs to its engine and carries out the engine's outputs.
//!
//! A [`UserEndpoint`] has its own AMQP connection, engine, journal and blocks. Whatever goes wrong in it, a panic
//! included, ends or degrades it alone. What all of a process share (the listener for workers, the bound on held
//! bytes, the metrics) is its [`Environment`].

mod blocks;
mod driver;
mod environment;
mod failure;
mod heartbeat;
mod memory;
mod observer;
mod settings;
mod status;

use std::path::PathBuf;
use std::sync::Arc;

use endpoint_config::UserEndpointConfig;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;
use uuid::Uuid;
use waypost_protocol::AmqpCredentials;

pub use crate::broker::BrokerState;
pub use environment::{Environment, EnvironmentError, EnvironmentSettings, LinkSettings, RemoteLink};
pub use status::{BlockStatus, UserEndpointState, UserEndpointStatus};

/// Everything that one user endpoint is started from.
#[derive(Debug, Clone)]
pub struct Specification {
    /// The user endpoint's id; for a direct endpoint the endpoint's own.
    pub id: Uuid,
    /// Its name: `uep.<endpoint id>.<user endpoint id>`, or a direct endpoint's name.
    pub name: String,
    /// The id of the endpoint whose process hosts it.
    pub endpoint_id: Uuid,
    /// Its folder: journal, logs of blocks, working directory of tasks. Made if it is missing.
    pub directory: PathBuf,
    /// Its rendered and checked configuration.
    pub config: UserEndpointConfig,
    /// The text that `config` was read from, for the heartbeat's `config_raw`.
    pub config_text: String,
    /// Where its tasks come from and its results and heartbeats go.
    pub credentials: AmqpCredentials,
    /// Whether it was restored from the saved state at a start of the process, and not made by a command just now.
    pub saved: bool,
}

/// How a user endpoint is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Stop consuming, give back what has not started, flush the results in hand; blocks live on for the next agent.
    HandOver,
    /// The same, then drain and delete all blocks.
    Drain,
    /// What SIGTERM means: hand over where blocks live on without this agent's machine, drain where they do not.
    Terminate,
}

/// How a user endpoint ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It had nothing to do for as long as `idle_heartbeats_soft` or `idle_heartbeats_hard` allow.
    Idle,
    /// It was told to.
    Stopped,
    /// It can not go on: a sentence that says why.
    Failed(String),
}

/// A running user endpoint. Dropping the handle without [`UserEndpoint::stop`] ends it as a kill would: nothing is
/// flushed, and its blocks live on.
#[derive(Debug)]
pub struct UserEndpoint {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<UserEndpointStatus>,
    ended: watch::Receiver<Option<Ended>>,
}

/// What the handle asks of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    Stop(Stop),
    ReplaceCredentials(Box<AmqpCredentials>),
}

impl UserEndpoint {
    /// Starts the tasks of a user endpoint on the current Tokio runtime and returns at once; the rest shows in
    /// [`UserEndpoint::status`] and [`UserEndpoint::ended`].
    #[must_use]
    pub fn start(specification: Specification, environment: Arc<Environment>) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (status_sender, status) =
            watch::channel(UserEndpointStatus::new(specification.id, specification.name.clone()));
        let (ended_sender, ended) = watch::channel(None);
        let name = specification.name.clone();
        // A panic is caught at the task's edge and ends this user endpoint alone.
        let span = tracing::info_span!("user_endpoint", of = %name);
        let running = tokio::spawn(run(specification, environment, status_sender.clone(), inbox).instrument(span));
        tokio::spawn(async move {
            let how = match running.await {
                Ok(how) => how,
                Err(error) => Ended::Failed(format!("the user endpoint's task failed: {error}")),
            };
            match &how {
                Ended::Failed(why) => {
                    tracing::error!(user_endpoint = %name, %why, "the user endpoint has failed");
                    status_sender.send_modify(|status| status.last_error = Some(why.clone()));
                }
                Ended::Idle | Ended::Stopped => {
                    tracing::info!(user_endpoint = %name, ?how, "the user endpoint has ended")
                }
            }
            status_sender.send_modify(|status| status.state = UserEndpointState::Ended);
            ended_sender.send_replace(Some(how));
        });
        Self {
            commands,
            status,
            ended,
        }
    }

    /// Its state and figures, as they change (at most ten times a second).
    #[must_use]
    pub fn status(&self) -> watch::Receiver<UserEndpointStatus> {
        self.status.clone()
    }

    /// Asks it to end and waits until it has. A second call with [`Stop::Drain`] after [`Stop::HandOver`] drains.
    pub async fn stop(&self, how: Stop) -> Ended {
        // A closed channel means that it has ended already.
        let _ = self.commands.send(Command::Stop(how));
        self.ended().await
    }

    /// Gives it the credentials of a newer start command. It reconnects if they differ or if the old were refused.
    pub fn replace_credentials(&self, credentials: AmqpCredentials) {
        let _ = self.commands.send(Command::ReplaceCredentials(Box::new(credentials)));
    }

    /// Waits until it has ended, however that comes.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or(Ended::Stopped),
            Err(_) => Ended::Failed("the user endpoint's task ended without a word".to_owned()),
        }
    }
}

async fn run(
    specification: Specification,
    environment: Arc<Environment>,
    status: watch::Sender<UserEndpointStatus>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Ended {
    match driver::Driver::start(specification, environment, status, &mut commands).await {
        Ok(driver) => driver.run(commands).await,
        Err(ended) => ended,
    }
}
