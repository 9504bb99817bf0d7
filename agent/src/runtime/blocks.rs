//! What a user endpoint's blocks are: which provider launches them, and what they are called.

use tokio::sync::mpsc;

use super::{Environment, Specification, settings};
use crate::config::ProviderConfig;
use crate::provider::local::{LocalProvider, LocalSettings};
use crate::provider::{BlockNames, Provider, ProviderEvent};

/// The names of a user endpoint's blocks.
pub(super) fn names(specification: &Specification, _environment: &Environment) -> BlockNames {
    match &specification.config.engine.provider {
        ProviderConfig::Local(_) | ProviderConfig::Kubernetes(_) => BlockNames::new(specification.id),
    }
}

/// The provider that its configuration names. The error is a sentence.
pub(super) fn provider(
    specification: &Specification,
    environment: &Environment,
    events: mpsc::UnboundedSender<ProviderEvent>,
) -> Result<Box<dyn Provider>, String> {
    let Specification {
        id, config, directory, ..
    } = specification;
    let (hub, shared) = (environment.hub(), environment.settings());
    match &config.engine.provider {
        ProviderConfig::Kubernetes(_) => Err("pods are not launched yet".to_owned()),
        ProviderConfig::Local(local) => Ok(Box::new(LocalProvider::new(
            LocalSettings {
                names: names(specification, environment),
                directory: directory.clone(),
                worker_init: local.worker_init.clone(),
                worker: settings::worker_command(&config.engine, &shared.worker, &hub.address(), *id, directory),
                environment: config.environment.clone(),
                token: hub.token_maker(*id),
            },
            events,
        ))),
    }
}
