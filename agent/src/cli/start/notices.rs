//! Kubernetes Events about the credentials of an agent in a pod: for who looks at the pod, and not yet into it.

use std::sync::Arc;
use std::time::Duration;

use endpoint_telemetry::Metrics;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Config;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch;

use crate::auth::CredentialsStatus;

/// After one Event the next comes no sooner, nor does a try to write one that could not be written.
const PAUSE: Duration = Duration::from_secs(60);
/// The API server takes no longer note, in bytes.
const NOTE_MAX: usize = 1024;

/// Tells of the credentials in Events about this pod, for as long as the process lives. Outside of a cluster nobody
/// would see them.
pub(super) async fn tell(
    pod: Option<ObjectReference>,
    status: watch::Receiver<CredentialsStatus>,
    metrics: &Arc<Metrics>,
) {
    let Some(pod) = pod else { return };
    let connected = match Config::infer().await {
        Ok(config) => endpoint_cluster_client::connect(config, metrics).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(error, "there is no cluster to write Events to");
            return;
        }
    };
    let reporter = Reporter {
        controller: "waypost.dev/endpoint".to_owned(),
        instance: pod.name.clone(),
    };
    let recorder = Recorder::new(client, reporter);
    let publish = |event: Event| {
        let (recorder, pod) = (recorder.clone(), pod.clone());
        async move {
            let written = recorder.publish(&event, &pod).await;
            written
                .inspect_err(
                    |error| tracing::debug!(%error, reason = event.reason, "a Kubernetes Event can not be written"),
                )
                .is_ok()
        }
    };
    follow(status, publish, || tokio::time::sleep(PAUSE)).await;
}

/// Writes an Event when the credentials come to be missing or refused: one for each time, and none when they are good.
/// Then it pauses.
async fn follow<Written: Future<Output = bool>, Paused: Future<Output = ()>>(
    mut status: watch::Receiver<CredentialsStatus>,
    publish: impl Fn(Event) -> Written,
    pause: impl Fn() -> Paused,
) {
    let mut told = None;
    loop {
        let event = event(&status.borrow_and_update());
        let reason = event.as_ref().map(|event| event.reason.clone());
        if reason == told {
            if status.changed().await.is_err() {
                return;
            }
            continue;
        }
        match event {
            None => told = None,
            Some(event) => {
                if publish(event).await {
                    told = reason;
                }
                pause().await;
            }
        }
    }
}

/// What is to be told of such credentials, if anything is.
fn event(status: &CredentialsStatus) -> Option<Event> {
    let reason = match status.state {
        "missing" => "CredentialsMissing",
        "refused" => "CredentialsRefused",
        _ => return None,
    };
    let mut note = format!(
        "The endpoint's credentials are {}: {}",
        status.state,
        status.why.as_deref().unwrap_or("no reason is known")
    );
    note.truncate(note.floor_char_boundary(NOTE_MAX));
    Some(Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note),
        action: "LogIn".to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt as _;

    use super::*;

    fn credentials(state: &'static str, why: Option<&str>) -> CredentialsStatus {
        CredentialsStatus {
            state,
            of: None,
            why: why.map(ToOwned::to_owned),
        }
    }

    #[tokio::test]
    async fn credentials_are_told_of_once_each_time_that_they_come_to_be_of_no_use() {
        let (sender, status) = watch::channel(credentials("unknown", None));
        let told = RefCell::new(Vec::new());
        let works = Cell::new(true);
        let publish = |event: Event| {
            if works.get() {
                told.borrow_mut().push((event.reason, event.note.unwrap_or_default()));
            }
            std::future::ready(works.get())
        };
        let mut following = Box::pin(follow(status, publish, tokio::task::yield_now));
        let mut becomes = |state, why| {
            sender.send_replace(credentials(state, why));
            // Each pause is over with the next turn.
            for _ in 0..10 {
                assert!((&mut following).now_or_never().is_none(), "it has ended");
            }
            std::mem::take(&mut *told.borrow_mut())
        };
        assert!(becomes("valid", None).is_empty());
        let missing = becomes("missing", Some("nobody has logged in"));
        let note = "The endpoint's credentials are missing: nobody has logged in";
        assert_eq!(missing, [("CredentialsMissing".to_owned(), note.to_owned())]);
        assert!(becomes("missing", Some("in other words")).is_empty());
        let refused = becomes("refused", Some("gone"));
        assert_eq!(refused[0].0, "CredentialsRefused");
        assert!(becomes("valid", None).is_empty(), "it goes silent when they are good");
        assert_eq!(becomes("refused", Some("gone again")).len(), 1);
        works.set(false);
        assert!(becomes("missing", Some("while nobody takes Events")).is_empty());
        works.set(true);
        assert_eq!(becomes("missing", Some("while nobody takes Events")).len(), 1);
    }

    #[test]
    fn a_long_reason_is_cut_to_what_the_api_server_takes() {
        let event = event(&credentials("refused", Some(&"ü".repeat(NOTE_MAX)))).unwrap();
        let note = event.note.unwrap();
        assert!(note.len() <= NOTE_MAX && note.ends_with('ü'), "{}", note.len());
    }
}
