//! What a user endpoint's blocks are: which provider launches them, and what they are called.

use endpoint_config::{KubernetesProviderConfig, LocalProviderConfig, ProviderConfig};
use endpoint_provider::kubernetes::{KubernetesProvider, KubernetesSettings};
use endpoint_provider::local::{LocalProvider, LocalSettings};
use endpoint_provider::{BlockNames, Provider, ProviderEvent};
use tokio::sync::mpsc;

use super::{Environment, Specification, settings};

/// What the pods' names begin with, if neither the deployment nor the configuration says otherwise.
const RELEASE: &str = "waypost";
/// The most of it, so that a name has room for the rest.
const RELEASE_MAX: usize = 20;

/// The names of a user endpoint's blocks.
pub(super) fn names(specification: &Specification, environment: &Environment) -> BlockNames {
    match &specification.config.engine.provider {
        ProviderConfig::Local(_) => BlockNames::new(specification.id),
        ProviderConfig::Kubernetes(config) => {
            let release = environment.settings().release.as_deref();
            let release: String = config
                .pod_name
                .as_deref()
                .or(release)
                .unwrap_or(RELEASE)
                .chars()
                .take(RELEASE_MAX)
                .collect();
            BlockNames::of_release(specification.id, release.trim_end_matches('-'))
        }
    }
}

/// The provider that its configuration names. The error is a sentence.
pub(super) fn provider(
    specification: &Specification,
    environment: &Environment,
    events: mpsc::UnboundedSender<ProviderEvent>,
) -> Result<Box<dyn Provider>, String> {
    match &specification.config.engine.provider {
        ProviderConfig::Local(config) => Ok(Box::new(local(specification, environment, config, events))),
        ProviderConfig::Kubernetes(config) => Ok(Box::new(kubernetes(specification, environment, config, events)?)),
    }
}

fn local(
    specification: &Specification,
    environment: &Environment,
    local: &LocalProviderConfig,
    events: mpsc::UnboundedSender<ProviderEvent>,
) -> LocalProvider {
    let Specification {
        id, config, directory, ..
    } = specification;
    let (hub, shared) = (environment.hub(), environment.settings());
    let settings = LocalSettings {
        names: names(specification, environment),
        directory: directory.clone(),
        worker_init: local.worker_init.clone(),
        worker: settings::worker_command(&config.engine, &shared.worker, &hub.address(), *id, directory),
        environment: config.environment.clone(),
        token: hub.token_maker(*id),
    };
    LocalProvider::new(settings, events)
}

fn kubernetes(
    specification: &Specification,
    environment: &Environment,
    config: &KubernetesProviderConfig,
    events: mpsc::UnboundedSender<ProviderEvent>,
) -> Result<KubernetesProvider, String> {
    let (hub, shared) = (environment.hub(), environment.settings());
    let cluster = shared
        .cluster
        .clone()
        .ok_or("a KubernetesProvider is configured, and this agent was started without a cluster")?;
    let remote = environment.remote().ok_or(
        "a KubernetesProvider is configured, and this agent does not listen for workers in pods: set WAYPOST_LINK_LISTEN, \
         such as 0.0.0.0:5800, and how pods reach it by WAYPOST_LINK_SERVICE or WAYPOST_LINK_ADDRESS",
    )?;
    let settings = KubernetesSettings {
        endpoint_id: specification.endpoint_id,
        names: names(specification, environment),
        config: config.clone(),
        addresses: remote.addresses.clone(),
        certificate_pem: remote.certificate_pem.clone(),
        worker_options: settings::worker_options(&specification.config.engine, specification.id),
        environment: specification.config.environment.clone(),
        working_directory: specification.config.engine.working_dir.clone(),
        token: hub.token_maker(specification.id),
    };
    Ok(KubernetesProvider::new(settings, cluster, events))
}
