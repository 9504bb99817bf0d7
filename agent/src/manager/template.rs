//! A template endpoint: commands in, user endpoints out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use endpoint_config::{EndpointDirectory, ManagerConfig};
use endpoint_telemetry::{CommandOutcome, Metrics};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, QueueInfo};

use super::Renewed;
use super::command::{Incoming, Refusal, StartRequest, check};
use super::hosted::{Event, Host, told};
use super::render::{local_user, rendered, rendered_again};
use super::report::{failure_notice, heartbeats};
use super::status::Board;
use crate::broker::{CommandDelivery, Commands};
use crate::runtime::{BrokerState, Ended, Environment, Stop};
use crate::service::replace_port;
use crate::state::{SavedUserEndpoint, StateStore};

/// All that a template endpoint is run from.
pub struct TemplateEndpoint {
    /// Its folder.
    pub directory: EndpointDirectory,
    /// The folder in which each user endpoint gets one.
    pub base: PathBuf,
    /// Its configuration.
    pub config: ManagerConfig,
    /// The most user endpoints that run at once.
    pub max_user_endpoints: usize,
    /// Its id.
    pub endpoint_id: Uuid,
    /// The identities of its owner, for whom it runs.
    pub owner: BTreeSet<Uuid>,
    /// Where commands come from.
    pub commands: QueueInfo,
    /// Where heartbeats go.
    pub heartbeats: QueueInfo,
    /// What outlives the process.
    pub store: Arc<StateStore>,
    /// What user endpoints share.
    pub environment: Arc<Environment>,
    /// Where the status is shown.
    pub board: Arc<Board>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
}

impl TemplateEndpoint {
    /// Runs until `stop` says how to end; then user endpoints end so, and a last heartbeat says that it ends.
    /// `renew` gives queues with fresh credentials, when the broker refuses those at hand.
    pub async fn run<R, F>(self, mut stop: watch::Receiver<Option<Stop>>, renew: R)
    where
        R: Fn() -> F,
        F: Future<Output = Renewed<(QueueInfo, QueueInfo)>>,
    {
        let (host, mut events) = Host::new(
            Arc::clone(&self.environment),
            Arc::clone(&self.board),
            self.base.clone(),
            self.endpoint_id,
        );
        let mut host = host;
        self.restore(&mut host).await;
        let (mut commands, mut broker) = self.consume(self.commands.clone());
        let (mut beating, mut heart) = self.beat(self.heartbeats.clone());
        self.board.set_running();
        let mut stop_meanwhile = stop.clone();
        let how = loop {
            tokio::select! {
                biased;
                how = told(&mut stop) => break how,
                Some(event) = events.recv() => self.handle_event(&mut host, event).await,
                Some(delivery) = commands.recv() => self.handle_command(&mut host, delivery).await,
                () = refused(&mut broker) => {
                    tracing::warn!("the broker refuses the endpoint's credentials; asking the service for new ones");
                    tokio::select! {
                        how = told(&mut stop_meanwhile) => break how,
                        renewed = renew() => match renewed {
                            Renewed::With((queue, heartbeat_queue)) => {
                                (commands, broker) = self.consume(queue);
                                beating.send_replace(true);
                                (beating, heart) = self.beat(heartbeat_queue);
                            }
                            Renewed::Not => {}
                            Renewed::Over => break Stop::Drain,
                        },
                    }
                }
            }
        };
        self.board.set_stopping();
        drop(commands);
        beating.send_replace(true);
        let _ = tokio::join!(host.stop(how), heart);
    }

    fn consume(&self, queue: QueueInfo) -> (mpsc::Receiver<CommandDelivery>, watch::Receiver<BrokerState>) {
        let name = format!("endpoint {} commands", self.endpoint_id);
        let (commands, state) = Commands::start(queue, name, Arc::clone(&self.metrics));
        self.board.set_commands(state.clone());
        (commands, state)
    }

    fn beat(&self, queue: QueueInfo) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let (beating, stop) = watch::channel(false);
        let heart = tokio::spawn(heartbeats(
            self.endpoint_id,
            queue,
            self.config.base.heartbeat_period,
            Arc::clone(&self.metrics),
            stop,
        ));
        (beating, heart)
    }

    /// Starts what ran when the process ended. It comes before the first command is read.
    async fn restore(&self, host: &mut Host) {
        let (saved, problems) = match self.store.user_endpoints().await {
            Ok(found) => found,
            Err(error) => {
                self.complain(format!("no user endpoint could be restored: {error}"));
                return;
            }
        };
        for problem in problems {
            self.complain(format!("a user endpoint could not be restored: {problem}"));
        }
        for user_endpoint in saved {
            tracing::info!(user_endpoint = user_endpoint.name, "restoring the user endpoint");
            self.start_again(host, user_endpoint, true).await;
        }
    }

    /// Starts a user endpoint that ran before, as the endpoint's files would have it now.
    async fn start_again(&self, host: &mut Host, mut saved: SavedUserEndpoint, restored: bool) {
        let before = saved.config.clone();
        let (config, doubt) = match rendered_again(&self.directory, &self.config, &mut saved) {
            Ok(made) => made,
            Err(error) => {
                self.complain(format!("{} could not be started again: {error}", saved.name));
                return;
            }
        };
        if let Some(why) = doubt {
            self.complain(format!(
                "{} goes on as it was configured before, for its template can not be used any more: {why}",
                saved.name
            ));
        }
        if saved.config != before {
            tracing::info!(
                user_endpoint = saved.name,
                "the template has changed, and counts from now on"
            );
            if let Err(error) = self.store.save_user_endpoint(&saved).await {
                self.complain(error.to_string());
            }
        }
        host.start(saved, config, restored);
    }

    async fn handle_command(&self, host: &mut Host, delivery: CommandDelivery) {
        let request = check(
            Incoming {
                content_type: delivery.content_type.as_deref(),
                timestamp: delivery.timestamp,
                body: &delivery.body,
            },
            &self.owner,
            now(),
        );
        match request {
            Ok(request) => {
                if request.age > 180 {
                    tracing::info!(
                        user_endpoint = request.name,
                        age_s = request.age,
                        "the command waited while the endpoint was away"
                    );
                }
                self.obey(host, request, delivery).await;
            }
            Err(Refusal { text, notify }) => {
                tracing::error!("{text}");
                self.metrics.commands.increment(CommandOutcome::Refused);
                delivery.ack().await;
                if let Some(credentials) = notify {
                    self.notify(*credentials, text);
                }
            }
        }
    }

    /// Starts or refreshes a user endpoint. The command is acknowledged when what it brings is saved.
    async fn obey(&self, host: &mut Host, mut request: StartRequest, delivery: CommandDelivery) {
        if let Some(port) = self.config.base.amqp_port {
            let credentials = &mut request.credentials;
            for info in [
                &mut credentials.task_queue_info,
                &mut credentials.result_queue_info,
                &mut credentials.heartbeat_queue_info,
            ] {
                replace_port(info, port);
            }
        }
        if let Some(saved) = host.refresh(&request.name, &request.credentials) {
            if let Err(error) = self.store.save_user_endpoint(saved).await {
                self.put_off(error.to_string(), delivery).await;
                return;
            }
            tracing::debug!(
                user_endpoint = request.name,
                "the user endpoint runs; its credentials are refreshed"
            );
            self.metrics.commands.increment(CommandOutcome::Refreshed);
            delivery.ack().await;
            return;
        }
        let made = if host.len() >= self.max_user_endpoints {
            Err(format!(
                "the endpoint runs as many user endpoints as it may ({}); try again when one of them has ended, or ask \
                 the endpoint's administrator to raise `max_user_endpoints`",
                self.max_user_endpoints
            ))
        } else {
            rendered(&self.directory, &self.config, &request.name, &request.asked).map_err(|error| error.to_string())
        };
        let made = match made {
            Ok(made) => made,
            Err(reason) => {
                let text = format!("Unable to start user endpoint process for {} [{reason}]", local_user());
                tracing::error!(user_endpoint = request.name, "{text}");
                self.metrics.commands.increment(CommandOutcome::Invalid);
                delivery.ack().await;
                self.notify(request.credentials, text);
                return;
            }
        };
        let saved = SavedUserEndpoint {
            name: request.name,
            asked: request.asked,
            config: made.text,
            environment: made.environment,
            credentials: request.credentials,
            identity: request.identity,
            username: request.username,
        };
        if let Err(error) = self.store.save_user_endpoint(&saved).await {
            self.put_off(error.to_string(), delivery).await;
            return;
        }
        delivery.ack().await;
        tracing::info!(
            user_endpoint = saved.name,
            identity = %saved.identity,
            username = saved.username,
            "starting the user endpoint"
        );
        self.metrics.commands.increment(CommandOutcome::Started);
        host.start(saved, made.config, false);
    }

    /// Lets a command come again whose outcome could not be saved: what can not be kept must not be promised. One that is
    /// neither acknowledged nor given back takes a place in the broker's window for as long as the process lives.
    async fn put_off(&self, why: String, delivery: CommandDelivery) {
        self.complain(why);
        tokio::time::sleep(Duration::from_secs(1)).await;
        delivery.give_back().await;
    }

    async fn handle_event(&self, host: &mut Host, event: Event) {
        let Some(over) = host.handle(event, self.config.grace) else {
            return;
        };
        let name = over.saved.name.clone();
        match over.how {
            Ended::Idle if over.missed_command => {
                tracing::info!(
                    user_endpoint = name,
                    "a command came as the user endpoint ended; starting it again"
                );
                self.start_again(host, over.saved, false).await;
            }
            Ended::Idle | Ended::Stopped => {
                tracing::info!(user_endpoint = name, how = ?over.how, "the user endpoint has ended");
                if let Err(error) = self.store.remove_user_endpoint(&over.saved).await {
                    self.complain(error.to_string());
                }
            }
            Ended::Failed(reason) => {
                let text = format!("The user endpoint failed: {reason}");
                self.complain(format!("{name}: {text}"));
                // A start that never works must not be tried at each start of the process; the next command tries it.
                if let Err(error) = self.store.remove_user_endpoint(&over.saved).await {
                    self.complain(error.to_string());
                }
                self.environment.hub().give_up(over.saved.credentials.endpoint_id);
                self.notify(over.saved.credentials, text);
            }
        }
    }

    fn notify(&self, credentials: AmqpCredentials, text: String) {
        tokio::spawn(failure_notice(credentials, text, Arc::clone(&self.metrics)));
    }

    fn complain(&self, text: String) {
        tracing::error!("{text}");
        self.board.set_error(text);
    }
}

async fn refused(broker: &mut watch::Receiver<BrokerState>) {
    if broker.wait_for(|state| *state == BrokerState::Refused).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
