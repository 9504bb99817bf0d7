//! Sightings and outcomes in orders in which a real cluster brings them only now and then.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_util::poll;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::*;
use crate::Provider as _;
use crate::kubernetes::api::ApiError;
use crate::kubernetes::tests::settings;
use crate::kubernetes::{Cluster, Deployment, KubernetesProvider, KubernetesSettings};

const BLOCK: BlockId = BlockId { epoch: 7, number: 3 };
/// Guards only against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    keeper: Keeper,
    said: mpsc::UnboundedReceiver<ProviderEvent>,
    outcomes: mpsc::UnboundedReceiver<Done>,
    asked: Arc<Mutex<Vec<(Method, Value)>>>,
    listed: Arc<Mutex<Vec<Value>>>,
    standby: watch::Sender<bool>,
    /// Whether Secrets may be deleted: what asks for that waits until they may.
    secrets: watch::Sender<bool>,
}

impl World {
    /// A keeper that holds the queue, at an API server where containers have printed something and nothing else is but
    /// the pods that it lists.
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: KubernetesSettings) -> Self {
        let listed: Arc<Mutex<Vec<Value>>> = Arc::default();
        let pods = Arc::clone(&listed);
        let (secrets, may_delete) = watch::channel(true);
        let asked: Arc<Mutex<Vec<(Method, Value)>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (noted, pods, mut may_delete) = (Arc::clone(&noted), Arc::clone(&pods), may_delete.clone());
            async move {
                let (parts, body) = request.into_parts();
                let asks_for = |what| parts.method == Method::GET && parts.uri.path().ends_with(what);
                let (log, list) = (asks_for("/log"), asks_for("/pods"));
                let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                if parts.method == Method::DELETE && parts.uri.path().contains("/secrets/") {
                    let _ = may_delete.wait_for(|may| *may).await;
                }
                noted.lock().expect("no test panics here").push((parts.method, body));
                let missing =
                    json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""});
                let (code, text) = if log {
                    (200, "last words\n".to_owned())
                } else if list {
                    let pods = pods.lock().expect("no test panics here").clone();
                    (200, json!({"metadata": {}, "items": pods}).to_string())
                } else {
                    (404, missing.to_string())
                };
                let response = Response::builder().status(code);
                Ok::<_, tower::BoxError>(response.body(Body::from(text.into_bytes()))?)
            }
        });
        let (standby, stands_by) = watch::channel(false);
        let jobs = Jobs {
            standby: stands_by,
            endings: TaskTracker::new(),
            settings: Arc::new(settings),
            cluster: Cluster::with_client(Deployment::default(), Client::new(service, "work")),
        };
        let (events, said) = mpsc::unbounded_channel();
        let (done, outcomes) = mpsc::unbounded_channel();
        let keeper = Keeper {
            kept: Kept::new(jobs.settings.config.keep_failed_pods),
            jobs,
            events,
            blocks: BTreeMap::new(),
            timers: BTreeSet::new(),
            subscription: None,
            done,
            holds: true,
        };
        Self {
            keeper,
            said,
            outcomes,
            asked,
            listed,
            standby,
            secrets,
        }
    }

    /// Another engine begins, and finds the block with this status.
    async fn list(&mut self, status: &Value) -> Vec<BlockId> {
        let pod = self.described(false, status);
        *self.listed.lock().expect("no test panics here") = vec![pod];
        self.keeper.list().await.expect("the API server answers")
    }

    async fn outcome(&mut self) {
        let outcome = tokio::time::timeout(PATIENCE, self.outcomes.recv()).await;
        let outcome = outcome.expect("a job is under way").expect("the keeper lives");
        self.keeper.outcome(outcome);
    }

    /// A keeper of one block, which runs.
    fn running() -> Self {
        let mut world = Self::new();
        let pod = world.pod(false, &worker(&json!({"running": {}})));
        world.keeper.sighting(Sighting::Seen(pod));
        world
    }

    /// The block's pod with this status; `deleted`: and it is being deleted.
    fn pod(&self, deleted: bool, status: &Value) -> Box<ObservedPod> {
        Box::new(serde_json::from_value(self.described(deleted, status)).expect("a pod"))
    }

    fn described(&self, deleted: bool, status: &Value) -> Value {
        let settings = &self.keeper.jobs.settings;
        let labels = labels::of_block(settings.endpoint_id, settings.names.user_endpoint(), BLOCK);
        let mut pod = json!({
            "metadata": {"name": settings.names.name(BLOCK), "namespace": "work", "uid": "uid", "labels": labels},
            "spec": {"containers": [{"name": "worker"}]},
            "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        pod
    }

    /// How many timers there are for this.
    fn timers(&self, of: Timer) -> usize {
        self.keeper.timers.iter().filter(|(_, _, timer)| *timer == of).count()
    }

    /// The times of all timers come.
    fn wait(&mut self) {
        let timers = std::mem::take(&mut self.keeper.timers);
        let now = Instant::now();
        self.keeper.timers = timers.into_iter().map(|(_, id, timer)| (now, id, timer)).collect();
        self.keeper.timeout();
    }

    /// What the pod was told to say to autoscalers, each time.
    fn annotated(&self) -> Vec<Value> {
        let asked = self.asked.lock().expect("no test panics here");
        let patches = asked.iter().filter(|(method, _)| *method == Method::PATCH);
        patches
            .map(|(_, body)| body["metadata"]["annotations"][labels::BUSY[0].0].clone())
            .collect()
    }

    /// What was said of the block since this was asked last.
    fn states(&mut self) -> Vec<BlockState> {
        let mut states = Vec::new();
        while let Ok(event) = self.said.try_recv() {
            if let ProviderEvent::Observed { state, .. } = event {
                states.push(state);
            }
        }
        states
    }

    /// Whether the API server was asked to delete anything.
    fn deleted(&self) -> bool {
        let asked = self.asked.lock().expect("no test panics here");
        asked.iter().any(|(method, _)| *method == Method::DELETE)
    }

    fn ended(&mut self) -> Option<BlockEnd> {
        while let Ok(event) = self.said.try_recv() {
            if let ProviderEvent::Observed {
                state: BlockState::Ended(end),
                ..
            } = event
            {
                return Some(end);
            }
        }
        None
    }
}

fn worker(state: &Value) -> Value {
    json!({"phase": "Running", "containerStatuses": [{
        "name": "worker", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state
    }]})
}

#[tokio::test]
async fn a_pod_that_is_gone_before_its_last_words_are_read_is_told_of_with_them_and_forgotten() {
    let mut world = World::new();
    let failed = worker(&json!({"terminated": {"exitCode": 3, "reason": "Error"}}));
    let pod = world.pod(false, &failed);
    world.keeper.sighting(Sighting::Seen(pod));
    let pod = world.pod(true, &failed);
    world.keeper.sighting(Sighting::Gone(pod));
    assert_eq!(world.ended(), None, "its last words are being read");
    while let Some(outcome) = world.outcomes.recv().await {
        let told = matches!(outcome, Done::Ended(..));
        world.keeper.outcome(outcome);
        if told {
            break;
        }
    }
    let end = world.ended().expect("its end is told");
    assert_eq!((end.kind, end.output.as_str()), (BlockEndKind::Crashed, "last words"));
    assert!(world.keeper.blocks.is_empty(), "nothing is kept of it");
}

#[tokio::test]
async fn a_worker_that_ends_well_because_its_pod_is_deleted_was_deleted() {
    let mut world = World::new();
    let running = worker(&json!({"running": {}}));
    for deleted in [false, true] {
        let pod = world.pod(deleted, &running);
        world.keeper.sighting(Sighting::Seen(pod));
    }
    let pod = world.pod(true, &worker(&json!({"terminated": {"exitCode": 0}})));
    world.keeper.sighting(Sighting::Seen(pod));
    let end = world.ended().expect("its end is told");
    assert_eq!(end.kind, BlockEndKind::Deleted, "{end:?}");
}

#[tokio::test]
async fn a_block_that_has_short_tasks_one_after_the_other_stays_busy() {
    let mut world = World::running();
    for _ in 0..100 {
        world.keeper.set_busy(BLOCK, false);
        assert_eq!(world.timers(Timer::Idle), 1, "those before count no more");
        world.keeper.set_busy(BLOCK, true);
        assert_eq!(world.timers(Timer::Idle), 0);
    }
    assert!(world.outcomes.is_empty() && world.annotated().is_empty());
    world.keeper.set_busy(BLOCK, false);
    world.wait();
    world.outcome().await;
    assert_eq!(world.annotated(), [Value::Null]);
}

#[tokio::test]
async fn one_change_of_what_a_pod_says_of_itself_is_under_way_and_the_next_is_the_last_that_is_true() {
    let mut world = World::running();
    for _ in 0..3 {
        world.keeper.set_busy(BLOCK, false);
        world.wait();
        world.keeper.set_busy(BLOCK, true);
    }
    for said in [json!(null), json!("false")] {
        world.outcome().await;
        assert_eq!(world.annotated().last(), Some(&said));
    }
    assert_eq!(world.annotated().len(), 2);
    assert!(!world.keeper.blocks[&BLOCK].annotating, "there is nothing left to say");
}

/// A pod that has its node and not all of its images: this is what the first of its containers waits for.
fn being_made(reason: &str) -> Value {
    let waits = |name: &str, reason: &str| {
        json!({
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason}}
        })
    };
    json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "initContainerStatuses": [waits("waypost-install", reason)],
        "containerStatuses": [waits("worker", "PodInitializing")],
    })
}

#[tokio::test]
async fn a_pod_that_got_over_what_it_waited_for_is_said_to_wait_for_nothing() {
    let mut world = World::new();
    for (reason, cause) in [
        ("PodInitializing", None),
        ("ErrImagePull", Some(WaitingCause::Image)),
        ("PodInitializing", None),
    ] {
        let pod = world.pod(false, &being_made(reason));
        world.keeper.sighting(Sighting::Seen(pod));
        let [BlockState::Pending { why }] = &world.states()[..] else {
            panic!("it is said once: {reason}");
        };
        assert_eq!(why.as_ref().map(|waiting| waiting.cause), cause, "{reason}");
    }
}

#[tokio::test]
async fn what_events_say_of_a_pod_holds_while_it_shows_nothing_else() {
    let mut world = World::new();
    let pod = world.pod(false, &being_made("ContainerCreating"));
    world.keeper.sighting(Sighting::Seen(pod));
    let waiting = Waiting {
        cause: WaitingCause::Other,
        text: "FailedMount: timed out".to_owned(),
    };
    for _ in 0..2 {
        world.keeper.looked(BLOCK, Some(waiting.clone()));
        let pod = world.pod(false, &being_made("ContainerCreating"));
        world.keeper.sighting(Sighting::Seen(pod));
    }
    let why = Some(waiting);
    assert_eq!(
        world.states(),
        [BlockState::Pending { why: None }, BlockState::Pending { why }]
    );
}

#[tokio::test]
async fn an_end_that_came_while_another_had_the_queue_is_told_to_the_engine_that_begins_with_it() {
    let mut world = World::new();
    world.keeper.hold(false);
    let failed = worker(&json!({"terminated": {"exitCode": 3, "reason": "Error"}}));
    let pod = world.pod(false, &failed);
    world.keeper.sighting(Sighting::Seen(pod));
    world.outcome().await;
    world.ended().expect("its end is told, and not heard");
    for _ in 0..2 {
        assert_eq!(world.list(&failed).await, [BLOCK]);
        world.outcome().await;
        let end = world.ended().expect("its end is told again");
        assert_eq!((end.kind, end.output.as_str()), (BlockEndKind::Crashed, "last words"));
    }
}

#[tokio::test]
async fn the_end_of_a_pod_that_is_to_be_kept_is_told_though_the_queue_comes_before_its_last_words() {
    let mut settings = settings();
    settings.config.keep_failed_pods.count = 1;
    let mut world = World::with(settings);
    world.keeper.hold(false);
    let failed = worker(&json!({"terminated": {"exitCode": 3, "reason": "Error"}}));
    assert_eq!(world.list(&failed).await, [BLOCK]);
    world.keeper.hold(true);
    while world.keeper.blocks.contains_key(&BLOCK) {
        world.outcome().await;
    }
    let end = world.ended().expect("its end is told");
    assert_eq!((end.kind, end.output.as_str()), (BlockEndKind::Crashed, "last words"));
    assert!(world.keeper.kept.has("uid"));
}

#[tokio::test]
async fn a_deletion_that_another_agent_came_before_is_not_done_when_the_queue_is_ours_again() {
    let mut world = World::running();
    world.standby.send_replace(true);
    world.keeper.delete(BLOCK);
    assert_eq!(world.list(&worker(&json!({"running": {}}))).await, [BLOCK]);
    world.standby.send_replace(false);
    world.keeper.hold(true);
    // What it had printed, and that its deletion was given up.
    world.outcome().await;
    world.outcome().await;
    assert!(!world.deleted());
    world.keeper.delete(BLOCK);
    while !world.deleted() {
        world.outcome().await;
    }
}

#[tokio::test]
async fn a_pod_whose_creation_was_given_up_is_not_deleted_if_it_was_listed() {
    let mut world = World::new();
    world.standby.send_replace(true);
    world.keeper.start(BLOCK);
    assert_eq!(world.list(&worker(&json!({"running": {}}))).await, [BLOCK]);
    world.outcome().await;
    let block = &world.keeper.blocks[&BLOCK];
    assert!(block.creating.is_none() && block.removing.is_none() && !block.asked);
}

#[tokio::test]
async fn what_a_block_left_is_not_deleted_by_an_agent_that_lost_the_queue() {
    let mut world = World::running();
    let pod = world.pod(false, &worker(&json!({"terminated": {"exitCode": 0}})));
    world.keeper.sighting(Sighting::Seen(pod));
    let refused = Removal::Refused(ApiError::Unusable("no".to_owned()));
    world.keeper.removed(BLOCK, refused);
    world.keeper.hold(false);
    world.wait();
    assert!(world.keeper.blocks[&BLOCK].removing.is_none());
    world.keeper.hold(true);
    assert!(world.keeper.blocks[&BLOCK].removing.is_some());
}

#[tokio::test]
async fn a_pod_that_was_kept_goes_at_its_age_though_its_user_endpoint_has_ended() {
    let mut settings = settings();
    settings.config.keep_failed_pods.count = 1;
    let mut world = World::with(settings);
    let mut pod = world.described(false, &json!({"phase": "Failed"}));
    pod["metadata"]["annotations"] = json!({ labels::KEPT: "2026-01-01T00:00:00Z" });
    *world.listed.lock().expect("no test panics here") = vec![pod];
    assert_eq!(world.keeper.list().await.expect("the API server answers"), []);
    let World { keeper, asked, .. } = world;
    keeper.leave();
    let deleted = || {
        let asked = asked.lock().expect("no test panics here");
        asked.iter().any(|(method, _)| *method == Method::DELETE)
    };
    let gone = async {
        while !deleted() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is deleted");
}

#[tokio::test]
async fn an_end_waits_until_what_the_blocks_left_is_removed() {
    let world = World::new();
    world.secrets.send_replace(false);
    let pod = world.described(false, &worker(&json!({"running": {}})));
    *world.listed.lock().expect("no test panics here") = vec![pod];
    let (sender, mut events) = mpsc::unbounded_channel();
    let cluster = Arc::clone(&world.keeper.jobs.cluster);
    let mut provider = KubernetesProvider::new(settings(), cluster, sender);
    assert_eq!(provider.list().await.expect("the API server answers"), [BLOCK]);
    provider.hold(true);
    provider.delete(BLOCK);
    let is_end = |event| {
        let ProviderEvent::Observed { state, .. } = event else {
            return false;
        };
        matches!(state, BlockState::Ended(_))
    };
    while !is_end(events.recv().await.expect("the provider lives")) {}
    let endings = provider.jobs.endings.clone();
    let mut finish = pin!(provider.finish());
    // The keeper has its time to answer.
    while !endings.is_closed() {
        assert!(poll!(&mut finish).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(poll!(&mut finish).is_pending(), "the Secret is there");
    world.secrets.send_replace(true);
    finish.await;
    assert!(endings.is_empty());
}
