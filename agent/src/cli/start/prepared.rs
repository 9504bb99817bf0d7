use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use waypost_protocol::{DIRECT_PROTOCOL_VERSION, TEMPLATE_PROTOCOL_VERSION};

use crate::cli::complain;
use crate::cli::error::{CliError, exit_code};
use crate::cli::session::Session;
use crate::config::{Configuration, EndpointDirectory, schema};
use crate::manager::local_user;
use crate::service::{Host, Registered, Registration, ServiceError};
use crate::telemetry::Metrics;

/// The service is asked for fresh credentials at most so often.
const RENEWAL_PAUSE: Duration = Duration::from_secs(15);

/// All that a registration is made of, kept so that it can be made once more.
pub(super) struct Prepared {
    name: String,
    configuration: Configuration,
    config_text: String,
    template: Option<String>,
    schema: Option<Value>,
    host: Host,
    session: Session,
    renewed: Mutex<Option<Instant>>,
}

impl Prepared {
    /// Reads template and schema, and opens the session with the service.
    pub(super) async fn new(
        directory: &EndpointDirectory,
        configuration: Configuration,
        config_text: String,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, CliError> {
        let said = |path: &std::path::Path, what: String| {
            CliError::said(format!("{}: {what}", path.display()), exit_code::ERROR)
        };
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
            session: Session::open(Some(configuration.base()), Arc::clone(metrics))?,
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

    /// Registers: a new endpoint, or `known` once more.
    pub(super) async fn register(&self, known: Option<Uuid>) -> Result<Registered, CliError> {
        self.session
            .service
            .check_version(self.protocol_version())
            .await
            .map_err(explain)?;
        let registration = Registration {
            name: &self.name,
            configuration: &self.configuration,
            config_text: &self.config_text,
            template: self.template.as_deref(),
            schema: self.schema.as_ref(),
            host: &self.host,
        };
        let reply = self
            .session
            .service
            .register(known, &registration)
            .await
            .map_err(|error| {
                if let ServiceError::Refused { body, .. } = &error {
                    complain(&format!("Endpoint registration blocked.  [{body}]"));
                }
                explain(error)
            })?;
        reply.usable(&self.configuration).map_err(|missing| {
            CliError::said(
                format!("Invalid or unexpected registration data structure: {missing} is missing"),
                exit_code::SOFTWARE,
            )
        })
    }

    /// Registers once more for fresh credentials; not more often than every 15 s. `None` if that brings none.
    pub(super) async fn renew(&self, id: Uuid) -> Option<Registered> {
        let mut renewed = self.renewed.lock().await;
        if let Some(last) = *renewed {
            tokio::time::sleep_until(last + RENEWAL_PAUSE).await;
        }
        let outcome = self.register(Some(id)).await;
        *renewed = Some(Instant::now());
        match outcome {
            Ok(registered) => Some(registered),
            Err(error) => {
                tracing::error!(%error, "the service gave no new credentials");
                None
            }
        }
    }

    /// The identities for which the endpoint runs: those of the one who logged in.
    pub(super) async fn owner(&self) -> Result<BTreeSet<Uuid>, CliError> {
        let identities = self.session.tokens.identities().await?;
        Ok(identities
            .identity_set
            .iter()
            .map(|identity| identity.sub)
            .chain([identities.sub])
            .collect())
    }
}

fn explain(error: ServiceError) -> CliError {
    if !matches!(error, ServiceError::Unreachable { .. }) {
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
