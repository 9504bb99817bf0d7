use std::io;
use std::path::PathBuf;

/// Why the state can not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk does not do as told.
    #[error("the state file {path} can not be {verb}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        verb: &'static str,
        /// Why it was not.
        source: io::Error,
    },
    /// What is kept is not what was written.
    #[error("the state in {0} is damaged; restore it from a backup, or delete it and start again")]
    Damaged(String),
    /// No keys could be made.
    #[error("keys for the workers' link can not be made: {0}")]
    Keys(String),
    /// The API server does not do as told.
    #[error("the state Secret {name} in namespace {namespace} can not be {verb}: {reason}")]
    Secret {
        /// The Secret.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What was to be done.
        verb: &'static str,
        /// Why it was not, and what to do about it.
        reason: String,
        /// Whether it may work when it is tried again.
        passing: bool,
    },
    /// Kubernetes takes no larger Secret.
    #[error(
        "the state Secret {name} would have {size} bytes, and Kubernetes takes {limit}: each user endpoint that runs \
         needs a part of it; let idle ones end (`idle_heartbeats_soft`), lower `max_user_endpoints`, or make the \
         rendered configuration smaller"
    )]
    Full {
        /// The Secret.
        name: String,
        /// What it would come to.
        size: usize,
        /// What it may come to.
        limit: usize,
    },
}

impl StateError {
    /// Whether it may work when it is tried again: the API server is away, and nothing is wrong.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Secret { passing: true, .. })
    }
}
