//! What every command that calls the service needs.

use std::path::Path;
use std::sync::Arc;

use endpoint_config::BaseConfig;
use endpoint_telemetry::Metrics;

use super::error::CliError;
use super::variable;
use crate::auth::{Credentials, TokenKeeper, Tokens};
use crate::service::{Service, addresses};
use crate::transport;

/// A login and a service.
pub(super) struct Session {
    pub(super) service: Service,
    pub(super) tokens: Arc<Tokens>,
}

impl Session {
    /// For the credentials that are found now, in `base` among others, and the service that the environment or `config`
    /// names. `keeper` keeps refreshed tokens of a login that is only mounted.
    pub(super) fn open(
        base: &Path,
        config: Option<&BaseConfig>,
        metrics: Arc<Metrics>,
        keeper: Option<Arc<dyn TokenKeeper>>,
    ) -> Result<Self, CliError> {
        let found = addresses(
            config.and_then(|config| config.environment.as_deref()),
            config.is_some_and(|config| config.local_compute_services),
            variable,
        )?;
        let client = transport::client(variable)?;
        let credentials = Credentials::new(base, &found.environment, variable);
        let mut tokens = Tokens::new(client.clone(), found.auth, credentials, &metrics);
        if let Some(keeper) = keeper {
            tokens = tokens.with_keeper(keeper);
        }
        let tokens = Arc::new(tokens);
        let service = Service::new(client, found.compute, Arc::clone(&tokens), metrics);
        Ok(Self { service, tokens })
    }
}
