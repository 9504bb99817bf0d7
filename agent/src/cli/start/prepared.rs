use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use endpoint_config::{Configuration, EndpointDirectory, schema};
use endpoint_telemetry::Metrics;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use waypost_protocol::{DIRECT_PROTOCOL_VERSION, TEMPLATE_PROTOCOL_VERSION};

use crate::auth::{TokenKeeper, Tokens};
use crate::cli::complain;
use crate::cli::error::{CliError, exit_code};
use crate::cli::session::Session;
use crate::manager::{Renewed, local_user};
use crate::service::{Host, Registered, Registration, RegistrationReply, ServiceError};
use crate::state::{SavedRegistration, StateStore};

/// The service is asked for fresh credentials at most so often.
const RENEWAL_PAUSE: Duration = Duration::from_secs(15);
/// A start that could do without the service waits for it no longer.
const SERVICE_PATIENCE: Duration = Duration::from_secs(5);
/// A service that was away at the start is asked again after the first, and later after the second.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(5);
const CATCH_UP_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A registration, of now or of an earlier start.
pub(super) struct Admitted {
    /// The endpoint's connections.
    pub(super) registered: Registered,
    /// The identities for which a template endpoint runs: those of the one who logged in.
    pub(super) owner: BTreeSet<Uuid>,
    /// Why the service was not asked, if the registration is one of an earlier start.
    pub(super) without_service: Option<String>,
}

/// All that a registration is made of, kept so that it can be made once more.
pub(super) struct Prepared {
    name: String,
    configuration: Configuration,
    config_text: String,
    template: Option<String>,
    schema: Option<Value>,
    host: Host,
    session: Session,
    store: Arc<StateStore>,
    renewed: Mutex<Option<Instant>>,
}

impl Prepared {
    /// Reads template and schema, and opens the session with the service.
    pub(super) async fn new(
        base: &Path,
        directory: &EndpointDirectory,
        configuration: Configuration,
        config_text: String,
        store: Arc<StateStore>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, CliError> {
        let said = |path: &Path, what: String| CliError::said(format!("{}: {what}", path.display()), exit_code::ERROR);
        let (mut template, mut schema_value) = (None, None);
        if let Configuration::Template(config) = &configuration {
            let path = directory.template_file(Some(config));
            template = Some(std::fs::read_to_string(&path).map_err(|error| said(&path, error.to_string()))?);
            let path = directory.schema_file(Some(config));
            if path.exists() {
                let text = std::fs::read_to_string(&path).map_err(|error| said(&path, error.to_string()))?;
                schema_value = Some(schema::read(&text).map_err(|error| said(&path, error.to_string()))?);
            }
        }
        Ok(Self {
            name: directory.name().to_owned(),
            session: Session::open(
                base,
                Some(configuration.base()),
                Arc::clone(metrics),
                Some(Arc::clone(&store) as Arc<dyn TokenKeeper>),
            )?,
            store,
            configuration,
            config_text,
            template,
            schema: schema_value,
            host: Host {
                hostname: nix::unistd::gethostname()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                local_user: local_user(),
                python_version: python_version().await,
            },
            renewed: Mutex::new(None),
        })
    }

    /// Whose credentials it is registered with.
    pub(super) fn tokens(&self) -> &Arc<Tokens> {
        &self.session.tokens
    }

    pub(super) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    pub(super) fn config_text(&self) -> &str {
        &self.config_text
    }

    /// The Globus Compute release whose protocol this kind of endpoint speaks.
    pub(super) fn protocol_version(&self) -> &'static str {
        match self.configuration {
            Configuration::Template(_) => TEMPLATE_PROTOCOL_VERSION,
            Configuration::Direct(_) => DIRECT_PROTOCOL_VERSION,
        }
    }

    /// Registers: a new endpoint, or `known` once more. A known endpoint goes on with what the service answered at an
    /// earlier start, if the service is away now.
    pub(super) async fn admit(&self, known: Option<Uuid>) -> Result<Admitted, CliError> {
        let Some(saved) = self.saved(known).await else {
            let registration = self.register(known).await.map_err(complained)?;
            return self.admitted(registration, None);
        };
        let outcome = tokio::time::timeout(SERVICE_PATIENCE, self.register(known)).await;
        let reason = match outcome {
            Ok(Ok(registration)) => return self.admitted(registration, None),
            Ok(Err(error)) if error.is_passing() => error.to_string(),
            Ok(Err(error)) => return Err(complained(error)),
            Err(_) => format!("it has not answered for {} s", SERVICE_PATIENCE.as_secs()),
        };
        self.admitted(saved, Some(reason))
    }

    /// What the service answered at an earlier start, if it is of use for this one.
    async fn saved(&self, known: Option<Uuid>) -> Option<SavedRegistration> {
        let saved = match self.store.registration().await {
            Ok(saved) => saved?,
            Err(error) => {
                tracing::warn!(%error, "the last registration can not be used");
                return None;
            }
        };
        let fits = Some(saved.reply.endpoint_id) == known && saved.reply.clone().usable(&self.configuration).is_ok();
        fits.then_some(saved)
    }

    fn admitted(&self, registration: SavedRegistration, without_service: Option<String>) -> Result<Admitted, CliError> {
        let registered = registration.reply.usable(&self.configuration).map_err(|missing| {
            CliError::said(
                format!("Invalid or unexpected registration data structure: {missing} is missing"),
                exit_code::SOFTWARE,
            )
        })?;
        Ok(Admitted {
            registered,
            owner: registration.owner,
            without_service,
        })
    }

    /// Registers, and learns for whom the endpoint runs.
    async fn register(&self, known: Option<Uuid>) -> Result<SavedRegistration, ServiceError> {
        let Session { service, tokens, .. } = &self.session;
        service.check_version(self.protocol_version()).await?;
        let registration = Registration {
            name: &self.name,
            configuration: &self.configuration,
            config_text: &self.config_text,
            template: self.template.as_deref(),
            schema: self.schema.as_ref(),
            host: &self.host,
        };
        let reply = service.register(known, &registration).await?;
        let owner = match self.configuration {
            Configuration::Template(_) => {
                let identities = tokens.identities().await?;
                let linked = identities.identity_set.iter().flatten().map(|identity| identity.sub);
                linked.chain([identities.sub]).collect()
            }
            Configuration::Direct(_) => BTreeSet::new(),
        };
        Ok(SavedRegistration { reply, owner })
    }

    /// Keeps what the service answered, for a start while it is away.
    pub(super) async fn keep(&self, registered: &Registered, owner: &BTreeSet<Uuid>) {
        let registration = SavedRegistration {
            reply: RegistrationReply::from(registered.clone()),
            owner: owner.clone(),
        };
        if let Err(error) = self.store.save_registration(&registration).await {
            tracing::warn!(%error, "the registration is not kept: while the service is away the endpoint could not start");
        }
    }

    /// Registers as soon as the service is back.
    pub(super) async fn catch_up(&self, id: Uuid) {
        let mut pause = CATCH_UP_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(CATCH_UP_PAUSE_MAX);
            match self.register(Some(id)).await {
                Ok(registration) => match self.admitted(registration, None) {
                    Ok(admitted) => {
                        tracing::info!("the service is back; the endpoint is registered");
                        self.keep(&admitted.registered, &admitted.owner).await;
                        return;
                    }
                    Err(error) => tracing::error!(%error, "the service is back, and its answer is of no use"),
                },
                Err(error) if error.is_passing() => tracing::debug!(%error, "the service is still away"),
                Err(error) => tracing::error!(%error, "the service is back, and refuses the endpoint"),
            }
        }
    }

    /// Registers once more for fresh credentials; not more often than every 15 s.
    pub(super) async fn renew(&self, id: Uuid) -> Renewed<Registered> {
        let mut renewed = self.renewed.lock().await;
        if let Some(last) = *renewed {
            tokio::time::sleep_until(last + RENEWAL_PAUSE).await;
        }
        let outcome = match self.register(Some(id)).await {
            Ok(registration) => self.admitted(registration, None),
            Err(error) if ends_the_endpoint(&error) => {
                tracing::warn!(%error, "the service has stopped or deleted the endpoint");
                return Renewed::Over;
            }
            Err(error) => Err(CliError::from(error)),
        };
        *renewed = Some(Instant::now());
        match outcome {
            Ok(admitted) => {
                self.keep(&admitted.registered, &admitted.owner).await;
                Renewed::With(admitted.registered)
            }
            Err(error) => {
                tracing::error!(%error, "the service gave no new credentials");
                Renewed::Not
            }
        }
    }
}

/// Whether the service will have the endpoint no longer: it is deleted (404) or locked (423) by `endpoint stop --remote`.
const fn ends_the_endpoint(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Refused { status: 404 | 423, .. })
}

/// Says as upstream does that the service refuses the endpoint.
fn complained(error: ServiceError) -> CliError {
    if let ServiceError::Refused { body, .. } = &error {
        complain(&format!("Endpoint registration blocked.  [{body}]"));
    }
    explain(error)
}

fn explain(error: ServiceError) -> CliError {
    if !error.is_unreachable() {
        return CliError::from(error);
    }
    CliError::said(
        format!(
            "endpoint is unable to reach the Globus Compute service due to a network error.\nPlease ensure the Globus \
             Compute service address is reachable, then attempt restarting the endpoint.\n  {error}"
        ),
        exit_code::TEMPORARY,
    )
}

/// The version of the Python that workers use unless `worker_init` brings another.
async fn python_version() -> Option<String> {
    let output = Command::new("python3").arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(2), output).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().strip_prefix("Python ")?.to_owned())
}
