use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use endpoint_provider::kubernetes::Cluster;
use endpoint_telemetry::Metrics;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;
use waypost_link::tls::Authority;
use waypost_link::{Listener, TlsError, TokenKey};

use crate::hub::Hub;

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
    /// How workers on other machines reach the agent; not at all if absent.
    pub link: Option<LinkSettings>,
    /// The Kubernetes cluster in which blocks may be launched as pods.
    pub cluster: Option<Arc<Cluster>>,
    /// What the names of pods begin with: the name of the agent's own deployment.
    pub release: Option<String>,
}

/// How workers on other machines reach the agent: TCP with TLS 1.3.
#[derive(Debug)]
pub struct LinkSettings {
    /// Where the agent listens.
    pub listen: SocketAddr,
    /// Where workers dial, as `host:port`, the best first. If there is none: where the agent listens.
    pub addresses: Vec<String>,
    /// The certificate authority's private key in PEM, kept in the state.
    pub authority_key: SecretString,
}

/// What a worker on another machine is told, to find and to trust the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLink {
    /// Where to dial, as `host:port`, the best first. Never empty.
    pub addresses: Vec<String>,
    /// The certificate of the authority that signs the agent's, in PEM.
    pub certificate_pem: String,
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
    /// The address for workers on other machines can not be listened on.
    #[error("{address} can not be listened on for workers: {source}")]
    ListenRemote {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The kept key gives no certificate.
    #[error("no certificate for the workers' link can be made from the key in the state: {0}")]
    Certificate(#[from] TlsError),
}

/// What the user endpoints of one process share.
#[derive(Debug)]
pub struct Environment {
    settings: EnvironmentSettings,
    hub: Hub,
    remote: Option<RemoteLink>,
    /// How many user endpoints there are.
    hosted: watch::Sender<usize>,
}

/// A user endpoint's part of what is shared. Dropping it gives the part back.
#[derive(Debug)]
pub(super) struct Place {
    environment: Arc<Environment>,
    hosted: watch::Receiver<usize>,
}

/// No user endpoint's share of held bytes is less than this: below it nothing would move.
const HELD_BYTES_MIN: usize = 16 * 1024 * 1024;

impl Environment {
    /// Opens the listeners for workers and everything else that user endpoints share.
    ///
    /// # Errors
    /// [`EnvironmentError`] if a listener can not be made.
    pub async fn open(settings: EnvironmentSettings) -> Result<Arc<Self>, EnvironmentError> {
        let key = token_key(&settings.token_key);
        let mut hub =
            Hub::listen(settings.endpoint_id, &settings.directory, key).map_err(|source| EnvironmentError::Listen {
                directory: settings.directory.clone(),
                source,
            })?;
        let remote = match &settings.link {
            Some(link) => Some(listen_remote(&mut hub, link).await?),
            None => None,
        };
        Ok(Arc::new(Self {
            settings,
            hub,
            remote,
            hosted: watch::Sender::new(0),
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

    /// What a worker on another machine is told; none if no such worker is listened for.
    #[must_use]
    pub const fn remote(&self) -> Option<&RemoteLink> {
        self.remote.as_ref()
    }

    pub(super) fn take_place(self: &Arc<Self>) -> Place {
        self.count(|hosted| hosted + 1);
        Place {
            hosted: self.hosted.subscribe(),
            environment: Arc::clone(self),
        }
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        self.hosted.send_modify(|hosted| {
            *hosted = change(*hosted);
            let gauge = i64::try_from(*hosted).unwrap_or(i64::MAX);
            self.settings.metrics.user_endpoints.set(gauge);
        });
    }
}

impl Place {
    /// The bytes that this user endpoint may hold now.
    pub(super) fn held_bytes(&mut self) -> u64 {
        let hosted = (*self.hosted.borrow_and_update()).max(1);
        let share = (self.environment.settings.max_held_bytes / hosted).max(HELD_BYTES_MIN);
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Waits until [`Place::held_bytes`] may give something else, because user endpoints came or went.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as the environment, and that as long as this.
        let _ = self.hosted.changed().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.environment.count(|hosted| hosted.saturating_sub(1));
    }
}

/// Lets the hub take connections from other machines.
async fn listen_remote(hub: &mut Hub, link: &LinkSettings) -> Result<RemoteLink, EnvironmentError> {
    let failed = |source| EnvironmentError::ListenRemote {
        address: link.listen,
        source,
    };
    let authority = Authority::from_key_pem(link.authority_key.expose_secret())?;
    let listener = TcpListener::bind(link.listen).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    hub.serve(Listener::tls(listener, authority.server_config()?));
    let mut addresses = link.addresses.clone();
    if addresses.is_empty() {
        addresses.push(bound.to_string());
    }
    tracing::info!(address = %bound, ?addresses, "listening for workers on other machines");
    Ok(RemoteLink {
        addresses,
        certificate_pem: authority.certificate_pem()?,
    })
}

/// The link's key from the state's: as it is if it has the right length, and digested otherwise.
fn token_key(secret: &SecretSlice<u8>) -> TokenKey {
    let bytes = secret.expose_secret();
    TokenKey::from_bytes(bytes.try_into().unwrap_or_else(|_| Sha256::digest(bytes).into()))
}
