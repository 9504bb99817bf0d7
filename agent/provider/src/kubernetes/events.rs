//! Kubernetes Events: what an administrator of the cluster should find without looking into the agent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder as KubeRecorder, Reporter};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::deployment::Deployment;

/// The same is told at most this often.
const PERIOD: Duration = Duration::from_secs(60);
/// The API server takes no longer note, in bytes.
const NOTE_MAX: usize = 1024;

/// What is told: the Event's `reason` is `Block` and the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// No node takes a block's pod.
    Unschedulable,
    /// A block's image can not be pulled.
    ImageNotPulled,
    /// A block's pod can never work as it is.
    Misconfigured,
    /// A block's pod could not be created.
    NotCreated,
    /// A block ended otherwise than by its own or our will.
    Failed,
}

/// Tells Events about the agent's own pod, or about the anchor where the agent runs in none.
pub(super) struct Recorder {
    agent: Option<ObjectReference>,
    instance: Option<String>,
    recorder: OnceCell<KubeRecorder>,
    told: Mutex<BTreeMap<(Uuid, Reason), Instant>>,
}

impl Recorder {
    pub(super) fn new(deployment: &Deployment) -> Self {
        let pod = deployment.pod_name.clone().zip(deployment.namespace.clone());
        Self {
            instance: deployment.pod_name.clone(),
            agent: pod.map(|(name, namespace)| ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(name),
                namespace: Some(namespace),
                uid: deployment.pod_uid.clone(),
                ..ObjectReference::default()
            }),
            recorder: OnceCell::new(),
            told: Mutex::default(),
        }
    }

    /// Whether this is to be told now: it was not told lately.
    pub(super) fn is_due(&self, user_endpoint: Uuid, reason: Reason) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < PERIOD);
        match told.entry((user_endpoint, reason)) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }

    /// Tells one. Nothing depends on it: a failure is only logged.
    pub(super) async fn tell(
        &self,
        client: Client,
        namespace: &str,
        anchor: Option<OwnerReference>,
        reason: Reason,
        note: &str,
    ) {
        let anchor = || {
            anchor.map(|anchor| ObjectReference {
                api_version: Some(anchor.api_version),
                kind: Some(anchor.kind),
                name: Some(anchor.name),
                uid: Some(anchor.uid),
                namespace: Some(namespace.to_owned()),
                ..ObjectReference::default()
            })
        };
        let Some(about) = self.agent.clone().or_else(anchor) else {
            return;
        };
        let reporter = || Reporter {
            controller: "waypost.dev/endpoint".to_owned(),
            instance: self.instance.clone().or_else(|| about.name.clone()),
        };
        let recorder = self
            .recorder
            .get_or_init(|| async { KubeRecorder::new(client, reporter()) })
            .await;
        let event = Event {
            type_: EventType::Warning,
            reason: format!("Block{reason:?}"),
            note: Some(shortened(note)),
            action: "RunBlock".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::debug!(%error, ?reason, "a Kubernetes Event can not be written");
        }
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= NOTE_MAX {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(NOTE_MAX - 3);
    format!("{}...", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_period_and_each_user_endpoint_for_itself() {
        let recorder = Recorder::new(&Deployment::default());
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(recorder.is_due(one, Reason::Failed));
        assert!(!recorder.is_due(one, Reason::Failed));
        assert!(recorder.is_due(one, Reason::NotCreated));
        assert!(recorder.is_due(two, Reason::Failed));
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let note = shortened(&"ü".repeat(NOTE_MAX));
        assert!(note.len() <= NOTE_MAX && note.ends_with("ü..."), "{}", note.len());
        assert_eq!(shortened("short"), "short");
    }
}
