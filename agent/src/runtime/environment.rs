use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use waypost_link::TokenKey;

use crate::hub::Hub;
use crate::telemetry::Metrics;

/// What [`Environment::open`] needs.
#[derive(Debug)]
pub struct EnvironmentSettings {
    /// The endpoint's id.
    pub endpoint_id: Uuid,
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
    /// The Globus Compute version whose protocol is spoken, for heartbeats.
    pub endpoint_version: String,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
}

/// Why the process can not host user endpoints.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The socket for local workers can not be made.
    #[error("the socket for local workers can not be made in {directory}: {source}")]
    Listen {
        /// The endpoint's folder.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the user endpoints of one process share.
#[derive(Debug)]
pub struct Environment {
    settings: EnvironmentSettings,
    hub: Hub,
    hosted: AtomicUsize,
}

/// A user endpoint's part of what is shared. Dropping it gives the part back.
#[derive(Debug)]
pub(super) struct Place {
    environment: Arc<Environment>,
}

/// No user endpoint's share of held bytes is less than this: below it nothing would move.
const HELD_BYTES_MIN: usize = 16 * 1024 * 1024;

impl Environment {
    /// Opens the listener for local workers and everything else that user endpoints share.
    ///
    /// # Errors
    /// [`EnvironmentError`] if the socket can not be made.
    #[expect(
        clippy::unused_async,
        reason = "listening needs the Tokio runtime, and must stay a matter of awaiting"
    )]
    pub async fn open(settings: EnvironmentSettings) -> Result<Arc<Self>, EnvironmentError> {
        let key = token_key(&settings.token_key);
        let hub =
            Hub::listen(settings.endpoint_id, &settings.directory, key).map_err(|source| EnvironmentError::Listen {
                directory: settings.directory.clone(),
                source,
            })?;
        Ok(Arc::new(Self {
            settings,
            hub,
            hosted: AtomicUsize::new(0),
        }))
    }

    /// What it was opened with.
    #[must_use]
    pub const fn settings(&self) -> &EnvironmentSettings {
        &self.settings
    }

    /// The listener for workers.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(super) fn take_place(self: &Arc<Self>) -> Place {
        let hosted = self.hosted.fetch_add(1, Ordering::Relaxed) + 1;
        self.settings
            .metrics
            .user_endpoints
            .set(i64::try_from(hosted).unwrap_or(i64::MAX));
        Place {
            environment: Arc::clone(self),
        }
    }
}

impl Place {
    /// The bytes that this user endpoint may hold.
    pub(super) fn held_bytes(&self) -> usize {
        let hosted = self.environment.hosted.load(Ordering::Relaxed).max(1);
        (self.environment.settings.max_held_bytes / hosted).max(HELD_BYTES_MIN)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.environment.hosted.fetch_sub(1, Ordering::Relaxed);
        let hosted = i64::try_from(before.saturating_sub(1)).unwrap_or(i64::MAX);
        self.environment.settings.metrics.user_endpoints.set(hosted);
    }
}

/// The link's key from the state's: as it is if it has the right length, and digested otherwise.
fn token_key(secret: &SecretSlice<u8>) -> TokenKey {
    let bytes = secret.expose_secret();
    TokenKey::from_bytes(bytes.try_into().unwrap_or_else(|_| Sha256::digest(bytes).into()))
}
