use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretSlice;

use crate::telemetry::Metrics;

/// What [`Environment::open`] needs.
#[derive(Debug)]
pub struct EnvironmentSettings {
    /// The endpoint's folder; the socket for local workers is `agent.sock` in it.
    pub directory: PathBuf,
    /// The key that block tokens are derived with: at least 32 random bytes, kept in the state.
    pub token_key: SecretSlice<u8>,
    /// A number raised at each start of the agent, kept in the state: it makes block names unique.
    pub epoch: u64,
    /// The `worker` executable.
    pub worker: PathBuf,
    /// The most that all user endpoints together hold, in bytes of task bodies and results.
    pub max_held_bytes: usize,
    /// How long a silent worker whose block lives keeps its tasks.
    pub reconnect_grace: Duration,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
}

/// Why the process can not host user endpoints.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The socket for local workers can not be made.
    #[error("the socket {path} for local workers can not be made: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the user endpoints of one process share.
#[derive(Debug)]
pub struct Environment {
    settings: EnvironmentSettings,
}

impl Environment {
    /// Opens the listener for local workers and everything else that user endpoints share.
    ///
    /// # Errors
    /// [`EnvironmentError`] if the socket can not be made.
    #[expect(clippy::unused_async, reason = "opening the listener needs the Tokio runtime")]
    pub async fn open(settings: EnvironmentSettings) -> Result<Arc<Self>, EnvironmentError> {
        Ok(Arc::new(Self { settings }))
    }

    /// What it was opened with.
    #[must_use]
    pub const fn settings(&self) -> &EnvironmentSettings {
        &self.settings
    }
}
