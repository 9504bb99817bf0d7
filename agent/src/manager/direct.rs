//! A direct endpoint: one user endpoint, from the registration itself.

use std::sync::Arc;

use endpoint_config::{EndpointDirectory, UserEndpointConfig};
use endpoint_telemetry::Metrics;
use tokio::sync::watch;
use waypost_protocol::AmqpCredentials;

use super::Renewed;
use super::hosted::{lives_on, told};
use super::shell::run_shell;
use super::status::Board;
use crate::runtime::{Ended, Environment, Specification, Stop, UserEndpoint, UserEndpointState};

/// All that a direct endpoint is run from.
pub struct DirectEndpoint {
    /// Its folder.
    pub directory: EndpointDirectory,
    /// Its configuration.
    pub config: UserEndpointConfig,
    /// The text of the configuration.
    pub config_text: String,
    /// Its id and connections.
    pub credentials: AmqpCredentials,
    /// Whether it has run before.
    pub restored: bool,
    /// What user endpoints share.
    pub environment: Arc<Environment>,
    /// Where the status is shown.
    pub board: Arc<Board>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
}

impl DirectEndpoint {
    /// Runs until it is idle for too long, fails, or `stop` says how to end. `renew` registers once more and gives fresh
    /// credentials, when the broker refuses those at hand.
    pub async fn run<R, F>(self, mut stop: watch::Receiver<Option<Stop>>, renew: R) -> Ended
    where
        R: Fn() -> F,
        F: Future<Output = Renewed<AmqpCredentials>>,
    {
        let name = self.directory.name().to_owned();
        let endpoint = UserEndpoint::start(
            Specification {
                id: self.credentials.endpoint_id,
                name: name.clone(),
                endpoint_id: self.credentials.endpoint_id,
                directory: self.directory.path().to_owned(),
                config: self.config.clone(),
                config_text: self.config_text,
                credentials: self.credentials,
                saved: self.restored,
            },
            self.environment,
        );
        let mut status = endpoint.status();
        self.board.add(&name, endpoint.status());
        self.board.set_running();
        self.metrics.user_endpoints.set(1);
        let mut stop_meanwhile = stop.clone();
        let mut how = Stop::Drain;
        let ended = loop {
            tokio::select! {
                said = told(&mut stop) => {
                    self.board.set_stopping();
                    how = said;
                    break endpoint.stop(how).await;
                }
                ended = endpoint.ended() => break ended,
                () = waits_for_credentials(&mut status) => {
                    tracing::warn!("the broker refuses the endpoint's credentials; asking the service for new ones");
                    tokio::select! {
                        _ = told(&mut stop_meanwhile) => {}
                        renewed = renew() => match renewed {
                            Renewed::With(credentials) => endpoint.replace_credentials(credentials),
                            Renewed::Not => {}
                            Renewed::Over => {
                                self.board.set_stopping();
                                break endpoint.stop(how).await;
                            }
                        },
                    }
                }
            }
        };
        self.metrics.user_endpoints.set(0);
        if !lives_on(&self.config, how)
            && let Some(teardown) = &self.config.endpoint_teardown
            && let Err(error) = run_shell("endpoint_teardown", teardown, self.directory.path()).await
        {
            tracing::error!(error, "the endpoint was not torn down");
        }
        ended
    }
}

async fn waits_for_credentials(status: &mut watch::Receiver<crate::runtime::UserEndpointStatus>) {
    let waits = status
        .wait_for(|status| status.state == UserEndpointState::WaitingForCredentials)
        .await
        .is_ok();
    if !waits {
        std::future::pending::<()>().await;
    }
}
