use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use endpoint_provider::BlockNames;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use waypost_engine::{BlockId, WorkerId};
use waypost_link::{BlockToken, Hello, HelloRefusal, TokenKey, VERSIONS};

use super::HubEvent;

/// Which user endpoints take workers, and which sessions they have.
pub(super) struct Registry {
    endpoint: Uuid,
    key: TokenKey,
    next_worker: AtomicU64,
    entries: Mutex<BTreeMap<Uuid, Entry>>,
    /// Those that failed here and have not been registered since.
    given_up: Mutex<BTreeSet<Uuid>>,
}

#[derive(Debug)]
struct Entry {
    names: BlockNames,
    events: mpsc::Sender<HubEvent>,
    open: Arc<AtomicBool>,
    sessions: BTreeMap<BlockId, Live>,
}

#[derive(Debug)]
struct Live {
    worker: WorkerId,
    instance: Uuid,
    /// Dropped to end the session.
    _end: watch::Sender<()>,
}

/// A session that was let in. Its place is free again when this is dropped.
pub(super) struct Admission {
    registry: Arc<Registry>,
    user_endpoint: Uuid,
    pub(super) worker: WorkerId,
    pub(super) block: BlockId,
    pub(super) version: u16,
    pub(super) events: mpsc::Sender<HubEvent>,
    /// Closed when the session is to end.
    pub(super) ended: watch::Receiver<()>,
}

/// A user endpoint's place in the hub. Dropping it ends its sessions; its workers are told to dial again.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    user_endpoint: Uuid,
    open: Arc<AtomicBool>,
}

impl Registration {
    /// Whether workers are let in. Those that are turned away dial again.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.user_endpoint);
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Registry {
    pub(super) const fn new(endpoint: Uuid, key: TokenKey) -> Self {
        Self {
            endpoint,
            key,
            next_worker: AtomicU64::new(1),
            entries: Mutex::new(BTreeMap::new()),
            given_up: Mutex::new(BTreeSet::new()),
        }
    }

    pub(super) fn token(&self, user_endpoint: Uuid, block: &str) -> BlockToken {
        self.key.token(self.endpoint, user_endpoint, block)
    }

    pub(super) fn register(registry: &Arc<Self>, names: BlockNames, events: mpsc::Sender<HubEvent>) -> Registration {
        let open = Arc::new(AtomicBool::new(true));
        let user_endpoint = names.user_endpoint();
        let entry = Entry {
            names,
            events,
            open: Arc::clone(&open),
            sessions: BTreeMap::new(),
        };
        registry.lock().insert(user_endpoint, entry);
        registry.given_up().remove(&user_endpoint);
        Registration {
            registry: Arc::clone(registry),
            user_endpoint,
            open,
        }
    }

    /// Refuses the workers of a user endpoint for good, until it is registered anew.
    pub(super) fn give_up(&self, user_endpoint: Uuid) {
        self.given_up().insert(user_endpoint);
    }

    /// Lets a worker in, or says why not.
    pub(super) fn admit(registry: &Arc<Self>, hello: &Hello) -> Result<Admission, (HelloRefusal, String)> {
        // Before the token is looked at, nothing that the stranger says is.
        if !registry
            .key
            .verify(registry.endpoint, hello.endpoint, &hello.block, &hello.token)
        {
            return Err((HelloRefusal::Token, "the token is not that of the block".to_owned()));
        }
        let version = VERSIONS
            .negotiate(hello.versions)
            .map_err(|mismatch| (HelloRefusal::Version, mismatch.to_string()))?;
        let mut entries = registry.lock();
        let Some(entry) = entries
            .get_mut(&hello.endpoint)
            .filter(|entry| entry.open.load(Ordering::Relaxed))
        else {
            if registry.given_up().contains(&hello.endpoint) {
                return Err((
                    HelloRefusal::Unwanted,
                    "the user endpoint has failed, and its tasks with it".to_owned(),
                ));
            }
            return Err((
                HelloRefusal::NotMe,
                "the user endpoint does not run here at present".to_owned(),
            ));
        };
        let Some(block) = entry.names.parse(&hello.block) else {
            return Err((
                HelloRefusal::Unwanted,
                format!("{:?} is not the name of a block", hello.block),
            ));
        };
        if entry
            .sessions
            .get(&block)
            .is_some_and(|live| live.instance != hello.instance)
        {
            return Err((
                HelloRefusal::AlreadyConnected,
                "another worker uses this token".to_owned(),
            ));
        }
        let worker = WorkerId(registry.next_worker.fetch_add(1, Ordering::Relaxed));
        let (end, ended) = watch::channel(());
        // A session of the same worker that broke without a word ends with this.
        entry.sessions.insert(
            block,
            Live {
                worker,
                instance: hello.instance,
                _end: end,
            },
        );
        Ok(Admission {
            registry: Arc::clone(registry),
            user_endpoint: hello.endpoint,
            worker,
            block,
            version,
            events: entry.events.clone(),
            ended,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(entry) = self.registry.lock().get_mut(&self.user_endpoint)
            && entry
                .sessions
                .get(&self.block)
                .is_some_and(|live| live.worker == self.worker)
        {
            entry.sessions.remove(&self.block);
        }
    }
}
