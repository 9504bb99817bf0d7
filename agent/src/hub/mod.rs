//! The listener that workers dial, and their sessions.
//!
//! A [`Hub`] serves the whole process: one socket for local workers, and if asked for one with TLS for others. A worker
//! shows its block's token; that says which user endpoint it works for, and from there on everything that it says goes to
//! that user endpoint's loop, and everything that the loop says to it. A session is one task that reads, writes and
//! keeps heartbeats; it decides nothing about tasks.
//!
//! Nothing here grows without a bound: a loop that does not keep up is waited for, so the session stops reading, and
//! what is sent to a worker is bounded by the credit that the worker gave.

mod registry;
mod session;
mod translate;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use endpoint_provider::BlockNames;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;
use waypost_engine::{BlockId, HeldTask, Input, ToWorker, WorkerId};
use waypost_link::{BlockToken, Listener, TokenKey};

use registry::Registry;

pub use registry::Registration;

/// What a session tells its user endpoint's loop.
#[derive(Debug)]
pub enum HubEvent {
    /// A worker was let in. [`WorkerHandle::send`] is how to speak to it.
    Hello {
        /// The worker, to speak to it.
        worker: WorkerHandle,
        /// Its block.
        block: BlockId,
        /// Its executors.
        slots: u32,
        /// Everything it has of tasks.
        held: Vec<HeldTask>,
        /// Version of its Python; empty until it knows.
        python_version: String,
        /// Version of the SDK in that Python; empty until it knows.
        sdk_version: String,
    },
    /// What a worker said, in order.
    Said(Vec<Input>),
    /// A session is over.
    Lost {
        /// Whose.
        worker: WorkerId,
        /// Why, for people.
        why: String,
    },
}

/// One session, to speak to its worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    /// The session.
    pub id: WorkerId,
    outgoing: mpsc::UnboundedSender<ToWorker>,
}

impl WorkerHandle {
    /// Queues a message. Dropped if the session is over.
    pub fn send(&self, message: ToWorker) {
        let _ = self.outgoing.send(message);
    }
}

/// The process's listeners, and who is let in. Dropping it closes them; sessions live as long as their registration.
#[derive(Debug)]
pub struct Hub {
    registry: Arc<Registry>,
    address: PathBuf,
    /// The socket's file: another agent's in its place is not ours to remove.
    file: u64,
    listeners: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Listens on a Unix socket in the endpoint's folder.
    ///
    /// # Errors
    /// If the socket can not be made.
    pub fn listen(endpoint: Uuid, directory: &Path, key: TokenKey) -> io::Result<Self> {
        let address = socket_path(directory)?;
        let registry = Arc::new(Registry::new(endpoint, key));
        let listener = Listener::unix(&address)?;
        std::fs::set_permissions(&address, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let file = inode(&address).unwrap_or_default();
        let mut hub = Self {
            registry,
            address,
            file,
            listeners: Vec::new(),
        };
        hub.serve(listener);
        Ok(hub)
    }

    /// Lets workers in by this listener, too.
    pub fn serve(&mut self, listener: Listener) {
        self.listeners
            .push(tokio::spawn(accept(listener, Arc::clone(&self.registry))));
    }

    /// Where local workers dial, as `worker --connect` takes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", self.address.display())
    }

    /// The token of a block.
    #[must_use]
    pub fn token(&self, user_endpoint: Uuid, block: &str) -> BlockToken {
        self.registry.token(user_endpoint, block)
    }

    /// Makes tokens, for a provider.
    #[must_use]
    pub fn token_maker(&self, user_endpoint: Uuid) -> Arc<dyn Fn(&str) -> BlockToken + Send + Sync> {
        let registry = Arc::clone(&self.registry);
        Arc::new(move |block| registry.token(user_endpoint, block))
    }

    /// Lets in the workers of a user endpoint, whose blocks have these names, from now on. They are told to dial again until then.
    #[must_use]
    pub fn register(&self, names: BlockNames, events: mpsc::Sender<HubEvent>) -> Registration {
        Registry::register(&self.registry, names, events)
    }

    /// Ends the workers of a user endpoint as they dial, until it is registered anew. It has failed: nobody here is going
    /// to end its blocks, and workers that are told to dial again do so for as long as they are answered.
    pub fn give_up(&self, user_endpoint: Uuid) {
        self.registry.give_up(user_endpoint);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
        if inode(&self.address) == Some(self.file) {
            let _ = std::fs::remove_file(&self.address);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

async fn accept(listener: Listener, registry: Arc<Registry>) {
    loop {
        match listener.accept().await {
            Ok(incoming) => {
                tokio::spawn(session::run(incoming, Arc::clone(&registry)));
            }
            Err(error) => {
                tracing::warn!(%error, "a worker's connection can not be taken");
                // Too many open files, most likely: it passes, and asking at once again would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// `agent.sock` in the endpoint's folder. A socket's path has at most 107 bytes, so a long one is replaced by a folder
/// of our own under the temporary folder, the same at every start.
fn socket_path(directory: &Path) -> io::Result<PathBuf> {
    const PATH_BYTES_MAX: usize = 107;
    let path = std::path::absolute(directory)?.join("agent.sock");
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok(path);
    }
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let user = nix::unistd::geteuid();
    let folder = std::env::temp_dir().join(format!("waypost-{user}"));
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::create_dir_all(&folder)?;
    // Another user may have made a folder of this name first: then this fails, as it must.
    std::fs::set_permissions(&folder, private)?;
    Ok(folder.join(format!("{name}.sock")))
}
