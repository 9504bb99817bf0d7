//! Whether the Events about a pod are asked for. They only add words, and each answer costs the API server a walk through
//! all Events of the namespace: so a few a second, for pods that are made alike wait for the same, and none for a while
//! where the agent's Role does not allow it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::RateLimit;

/// Looks a second, and how many at once.
const LOOKS: (u32, u32) = (2, 10);
/// How long a refusal is remembered: a Role may be mended.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// See the module. One for all user endpoints of the process.
#[derive(Debug)]
pub(super) struct Looks {
    rate: RateLimit,
    refused: Mutex<BTreeMap<String, Instant>>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            rate: RateLimit::new(LOOKS.0, LOOKS.1),
            refused: Mutex::default(),
        }
    }

    /// Whether the Events of a namespace may be asked for now.
    pub(super) async fn is_due(&self, namespace: &str) -> bool {
        let refused = self.refused().get(namespace).copied();
        refused.is_none_or(|at| at.elapsed() >= REFUSED_FOR) && self.rate.try_permit().await
    }

    /// They were refused. Returns whether that is news.
    pub(super) fn refuse(&self, namespace: &str) -> bool {
        self.refused().insert(namespace.to_owned(), Instant::now()).is_none()
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
