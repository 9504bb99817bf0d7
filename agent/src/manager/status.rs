//! What a running endpoint says of itself to `endpoint status`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use uuid::Uuid;

use crate::auth::CredentialsStatus;
use crate::runtime::{BrokerState, UserEndpointStatus};

/// Everything that `endpoint status --json` shows.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// The endpoint's local name.
    pub name: String,
    /// Its id.
    pub endpoint_id: Option<Uuid>,
    /// The process.
    pub pid: Option<u32>,
    /// `starting`, `running`, `standby`, `waiting-for-credentials`, `disconnected` or `stopping`; in a pod `stopped`
    /// until it is started again; without a process `initialized` (never registered) or `stopped`.
    pub state: &'static str,
    /// `template` or `direct`.
    pub kind: Option<&'static str>,
    /// Our version.
    pub version: &'static str,
    /// When the process started, in RFC 3339 form.
    pub started: Option<String>,
    /// Where metrics and probes are served.
    pub http: Option<String>,
    /// Blocks of all user endpoints.
    pub blocks: usize,
    /// Slots of all connected workers.
    pub slots: usize,
    /// Tasks that wait: held and not started, or known to be in a queue.
    pub tasks_waiting: u64,
    /// Tasks that run.
    pub tasks_running: u64,
    /// How long the task that waited longest has waited, in milliseconds.
    pub oldest_wait_ms: Option<u64>,
    /// The last thing that went wrong, anywhere.
    pub last_error: Option<String>,
    /// What became of the credentials for the service when they were used last.
    pub credentials: Option<CredentialsStatus>,
    /// The user endpoints.
    pub user_endpoints: Vec<UserEndpointStatus>,
}

impl EndpointStatus {
    /// The status of an endpoint that does not run.
    #[must_use]
    pub fn stopped(name: &str, endpoint_id: Option<Uuid>) -> Self {
        Self {
            name: name.to_owned(),
            endpoint_id,
            pid: None,
            state: if endpoint_id.is_some() {
                "stopped"
            } else {
                "initialized"
            },
            kind: None,
            version: env!("CARGO_PKG_VERSION"),
            started: None,
            http: None,
            blocks: 0,
            slots: 0,
            tasks_waiting: 0,
            tasks_running: 0,
            oldest_wait_ms: None,
            last_error: None,
            credentials: None,
            user_endpoints: Vec::new(),
        }
    }
}

/// What the parts of a running endpoint write, and the status is read from.
#[derive(Debug)]
pub struct Board {
    name: String,
    kind: &'static str,
    started: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint_id: Option<Uuid>,
    http: Option<String>,
    phase: Phase,
    commands: Option<watch::Receiver<BrokerState>>,
    user_endpoints: BTreeMap<String, watch::Receiver<UserEndpointStatus>>,
    last_error: Option<String>,
    credentials: Option<watch::Receiver<CredentialsStatus>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Stopping,
    Stopped,
}

impl Board {
    /// An endpoint that starts now.
    #[must_use]
    pub fn new(name: &str, kind: &'static str) -> Arc<Self> {
        let now = OffsetDateTime::from(SystemTime::now());
        Arc::new(Self {
            name: name.to_owned(),
            kind,
            // For people, who need no fractions of a second.
            started: now
                .replace_nanosecond(0)
                .unwrap_or(now)
                .format(&Rfc3339)
                .unwrap_or_default(),
            inner: Mutex::new(Inner {
                endpoint_id: None,
                http: None,
                phase: Phase::Starting,
                commands: None,
                user_endpoints: BTreeMap::new(),
                last_error: None,
                credentials: None,
            }),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The service has given the endpoint its id.
    pub fn set_endpoint_id(&self, id: Uuid) {
        self.with(|inner| inner.endpoint_id = Some(id));
    }

    /// Metrics and probes are served there.
    pub fn set_http(&self, address: String) {
        self.with(|inner| inner.http = Some(address));
    }

    pub(crate) fn set_running(&self) {
        self.with(|inner| inner.phase = Phase::Running);
    }

    pub(crate) fn set_stopping(&self) {
        self.with(|inner| inner.phase = Phase::Stopping);
    }

    /// `template` or `direct`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// The endpoint was stopped, and its process stays until it is started again.
    pub(crate) fn set_stopped(&self) {
        self.with(|inner| inner.phase = Phase::Stopped);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.with(|inner| inner.phase == Phase::Stopped)
    }

    /// What went wrong is right again, if it is still the last thing that went wrong.
    pub(crate) fn clear_error(&self, error: &str) {
        self.with(|inner| {
            if inner.last_error.as_deref() == Some(error) {
                inner.last_error = None;
            }
        });
    }

    /// The state of the credentials is read there.
    pub(crate) fn set_credentials(&self, status: watch::Receiver<CredentialsStatus>) {
        self.with(|inner| inner.credentials = Some(status));
    }

    pub(crate) fn set_commands(&self, state: watch::Receiver<BrokerState>) {
        self.with(|inner| inner.commands = Some(state));
    }

    pub(crate) fn set_error(&self, error: String) {
        self.with(|inner| inner.last_error = Some(error));
    }

    pub(crate) fn add(&self, name: &str, status: watch::Receiver<UserEndpointStatus>) {
        self.with(|inner| inner.user_endpoints.insert(name.to_owned(), status));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.with(|inner| inner.user_endpoints.remove(name));
    }

    /// The status at this moment.
    #[must_use]
    pub fn status(&self) -> EndpointStatus {
        self.with(|inner| {
            let user_endpoints: Vec<UserEndpointStatus> = inner
                .user_endpoints
                .values()
                .map(|status| status.borrow().clone())
                .collect();
            let commands = inner.commands.as_ref().map(|state| *state.borrow());
            let credentials = inner.credentials.as_ref().map(|status| status.borrow().clone());
            let lacking = credentials.as_ref().is_some_and(|status| status.why.is_some());
            let state = match inner.phase {
                Phase::Starting if lacking => "waiting-for-credentials",
                Phase::Starting => "starting",
                Phase::Stopping => "stopping",
                Phase::Stopped => "stopped",
                Phase::Running => match commands {
                    None | Some(BrokerState::Consuming) => "running",
                    Some(BrokerState::Standby) => "standby",
                    Some(BrokerState::Refused) => "waiting-for-credentials",
                    Some(BrokerState::Connecting | BrokerState::Closed) => "disconnected",
                },
            };
            EndpointStatus {
                name: self.name.clone(),
                endpoint_id: inner.endpoint_id,
                pid: Some(std::process::id()),
                state,
                kind: Some(self.kind),
                version: env!("CARGO_PKG_VERSION"),
                started: Some(self.started.clone()),
                http: inner.http.clone(),
                blocks: user_endpoints.iter().map(|one| one.blocks.len()).sum(),
                slots: user_endpoints.iter().map(|one| one.slots).sum(),
                tasks_waiting: user_endpoints.iter().map(|one| one.tasks_waiting).sum(),
                tasks_running: user_endpoints.iter().map(|one| one.tasks_running).sum(),
                oldest_wait_ms: user_endpoints.iter().filter_map(|one| one.oldest_wait_ms).max(),
                last_error: inner
                    .last_error
                    .clone()
                    .or_else(|| user_endpoints.iter().find_map(|one| one.last_error.clone())),
                credentials,
                user_endpoints,
            }
        })
    }
}
