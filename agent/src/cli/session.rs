//! What every command that calls the service needs.

use std::sync::Arc;

use super::error::CliError;
use super::variable;
use crate::auth::{Login, Tokens};
use crate::config::BaseConfig;
use crate::service::{Service, addresses};
use crate::telemetry::Metrics;
use crate::transport;

/// A login and a service.
pub(super) struct Session {
    pub(super) service: Service,
    pub(super) tokens: Arc<Tokens>,
}

impl Session {
    /// For the login of the environment and the service that it or `config` names.
    pub(super) fn open(config: Option<&BaseConfig>, metrics: Arc<Metrics>) -> Result<Self, CliError> {
        let login = Login::from_environment(variable)?;
        let found = addresses(
            config.and_then(|config| config.environment.as_deref()),
            config.is_some_and(|config| config.local_compute_services),
            variable,
        )?;
        let client = transport::client(variable)?;
        let tokens = Arc::new(Tokens::new(client.clone(), found.auth, login));
        let service = Service::new(client, found.compute, Arc::clone(&tokens), metrics);
        Ok(Self { service, tokens })
    }
}
