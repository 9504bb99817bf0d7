//! One list and watch of the endpoint's pods in a namespace, for all user endpoints of the process.
//!
//! No object is kept: what is seen goes to the user endpoint that it belongs to, and nobody else's pods are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use endpoint_back_off::BackOff;
use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::labels;
use super::observed::ObservedPod;

/// How long one watch lasts before it is renewed. A connection that broke without a word is noticed a little later.
const RENEWAL_SECONDS: u32 = 60;
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Something that the watch saw of a user endpoint's pods.
#[derive(Debug)]
pub(super) enum Sighting {
    /// A pod is there, as it is now.
    Seen(Box<ObservedPod>),
    /// A pod is not there any more; this is the last of it.
    Gone(Box<ObservedPod>),
    /// All pods were listed anew: these there are, by name. Any other is gone, and nobody saw how.
    Listed(BTreeSet<String>),
}

type Subscribers = BTreeMap<(Uuid, u64), mpsc::UnboundedSender<Sighting>>;

/// The watches of all namespaces.
#[derive(Debug)]
pub(super) struct Watches {
    endpoint: Uuid,
    by_namespace: Arc<Mutex<BTreeMap<String, Arc<Watch>>>>,
}

/// The watch of one namespace.
#[derive(Debug, Default)]
struct Watch {
    subscribers: Mutex<Subscribers>,
    left: Notify,
}

/// A user endpoint's part in a watch, until it is dropped.
#[derive(Debug)]
pub(super) struct Subscription {
    watch: Arc<Watch>,
    key: (Uuid, u64),
    sightings: mpsc::UnboundedReceiver<Sighting>,
}

impl Watches {
    pub(super) fn new(endpoint: Uuid) -> Self {
        Self {
            endpoint,
            by_namespace: Arc::default(),
        }
    }

    /// Takes part in the watch of a namespace, which begins with the first to do so and ends with the last.
    pub(super) fn subscribe(&self, client: &Client, namespace: &str, user_endpoint: Uuid) -> Subscription {
        let (sender, sightings) = mpsc::unbounded_channel();
        let mut by_namespace = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = if let Some(watch) = by_namespace.get(namespace) {
            Arc::clone(watch)
        } else {
            let watch = Arc::<Watch>::default();
            tokio::spawn(run(
                Api::namespaced(client.clone(), namespace),
                self.endpoint,
                namespace.to_owned(),
                Arc::clone(&watch),
                Arc::clone(&self.by_namespace),
            ));
            by_namespace.insert(namespace.to_owned(), Arc::clone(&watch));
            watch
        };
        let mut subscribers = watch.subscribers();
        let number = subscribers
            .keys()
            .map(|(_, number)| number + 1)
            .max()
            .unwrap_or_default();
        let key = (user_endpoint, number);
        subscribers.insert(key, sender);
        drop(subscribers);
        Subscription { watch, key, sightings }
    }
}

impl Watch {
    fn subscribers(&self) -> std::sync::MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, pod: ObservedPod, sighting: fn(Box<ObservedPod>) -> Sighting) {
        let Some(user_endpoint) = labels::user_endpoint(&pod.metadata) else {
            return;
        };
        let subscribers = self.subscribers();
        let mut of_it = subscribers
            .range((user_endpoint, 0)..=(user_endpoint, u64::MAX))
            .map(|(_, sender)| sender);
        // There is one but for the moment in which a user endpoint ends and begins again.
        let Some(first) = of_it.next() else { return };
        for other in of_it {
            let _ = other.send(sighting(Box::new(pod.clone())));
        }
        let _ = first.send(sighting(Box::new(pod)));
    }

    fn tell_listed(&self, listed: &BTreeMap<Uuid, BTreeSet<String>>) {
        for ((user_endpoint, _), sender) in self.subscribers().iter() {
            let _ = sender.send(Sighting::Listed(listed.get(user_endpoint).cloned().unwrap_or_default()));
        }
    }
}

impl Subscription {
    pub(super) async fn next(&mut self) -> Option<Sighting> {
        self.sightings.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watch.subscribers().remove(&self.key);
        self.watch.left.notify_one();
    }
}

/// Watches until nobody takes part any more.
async fn run(
    api: Api<ObservedPod>,
    endpoint: Uuid,
    namespace: String,
    watch: Arc<Watch>,
    by_namespace: Arc<Mutex<BTreeMap<String, Arc<Watch>>>>,
) {
    let config = watcher::Config::default()
        .labels(&labels::select_endpoint(endpoint))
        .timeout(RENEWAL_SECONDS);
    let mut stream = Box::pin(watcher(api, config));
    let mut back_off = BackOff::new(BACK_OFF.0, BACK_OFF.1);
    let mut listed: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    let mut troubled = false;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = watch.left.notified() => {
                let mut by_namespace = by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
                if watch.subscribers().is_empty() {
                    by_namespace.remove(&namespace);
                    return;
                }
                continue;
            }
        };
        match event {
            Some(Ok(event)) => {
                if !matches!(event, Event::Init) {
                    back_off.reset();
                    if std::mem::take(&mut troubled) {
                        tracing::info!(%namespace, "pods are watched again");
                    }
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(pod) => {
                        if let (Some(user_endpoint), Some(name)) =
                            (labels::user_endpoint(&pod.metadata), &pod.metadata.name)
                        {
                            listed.entry(user_endpoint).or_default().insert(name.clone());
                        }
                        watch.tell(pod, Sighting::Seen);
                    }
                    Event::InitDone => watch.tell_listed(&std::mem::take(&mut listed)),
                    Event::Apply(pod) => watch.tell(pod, Sighting::Seen),
                    Event::Delete(pod) => watch.tell(pod, Sighting::Gone),
                }
            }
            Some(Err(error)) => {
                // An expired watch (410) is no trouble: the pods are listed anew.
                if !std::mem::replace(&mut troubled, true) {
                    tracing::warn!(%namespace, %error, "pods can not be watched; tried again");
                }
                tokio::time::sleep(back_off.next_wait()).await;
            }
            None => return,
        }
    }
}
