//! The Kubernetes provider against a real cluster, each test in a namespace of its own that it removes.
//!
//! They need `KUBECONFIG`, a node that has the images below, and the right to make namespaces:
//! `cargo test --release -p endpoint --test kubernetes -- --ignored`. Asked to run without, they fail.
//!
//! | variable | what it names |
//! |---|---|
//! | `WAYPOST_TEST_IMAGE` | an image with a shell and Python, present on the node |
//! | `WAYPOST_TEST_WORKER_IMAGE` | the worker image, present on the node |

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a test that failed had seen is what its reader needs"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use endpoint::config::{ImagePullPolicy, KeptPods, KubernetesProviderConfig, Quantity};
use endpoint::provider::kubernetes::{Cluster, Deployment, KubernetesProvider, KubernetesSettings};
use endpoint::provider::{BlockNames, CheckError, Provider as _, ProviderEvent};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, ResourceQuota, Secret};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;
use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, StartOutcome, Waiting, WaitingCause};
use waypost_link::BlockToken;

/// Guards only against hanging.
const PATIENCE: Duration = Duration::from_secs(120);
const FIRST: BlockId = BlockId { epoch: 1000, number: 1 };
const SECOND: BlockId = BlockId { epoch: 1000, number: 2 };

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set: these tests need a real cluster"))
}

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect("an amount")
}

/// A namespace of its own, and a provider in it.
struct World {
    client: Client,
    namespace: String,
    settings: KubernetesSettings,
    provider: KubernetesProvider,
    events: mpsc::UnboundedReceiver<ProviderEvent>,
}

impl World {
    async fn new(options: impl FnOnce(&mut KubernetesProviderConfig)) -> Self {
        Self::labelled(json!({}), options).await
    }

    /// Its namespace has these labels.
    async fn labelled(labels: serde_json::Value, options: impl FnOnce(&mut KubernetesProviderConfig)) -> Self {
        let _ = variable("KUBECONFIG");
        let client = Client::try_default().await.expect("a cluster");
        let id = Uuid::new_v4();
        let namespace = format!("provider-{}", &id.simple().to_string()[..8]);
        let made: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &made)
            .await
            .expect("a namespace");
        let mut config = KubernetesProviderConfig {
            image: variable("WAYPOST_TEST_IMAGE"),
            namespace: namespace.clone(),
            image_pull_policy: Some(ImagePullPolicy::Never),
            worker_image: Some(variable("WAYPOST_TEST_WORKER_IMAGE")),
            init_cpu: quantity("10m"),
            max_cpu: quantity("500m"),
            init_mem: quantity("16Mi"),
            max_mem: quantity("128Mi"),
            termination_grace: Duration::from_secs(5),
            worker_init: "trap 'exit 0' TERM; echo it is up; sleep 1000 & wait; exit 0".to_owned(),
            ..KubernetesProviderConfig::default()
        };
        options(&mut config);
        let settings = KubernetesSettings {
            endpoint_id: id,
            names: BlockNames::of_release(Uuid::new_v4(), "lab"),
            config,
            addresses: vec!["127.0.0.1:1".to_owned()],
            certificate_pem: "certificate".to_owned(),
            worker_options: Vec::new(),
            environment: BTreeMap::new(),
            working_directory: "tasks".to_owned(),
            token: Arc::new(|name| BlockToken::from_text(&format!("token of {name}"))),
        };
        let (provider, events) = provider(&settings, &client);
        Self {
            client,
            namespace,
            settings,
            provider,
            events,
        }
    }

    /// Lists, takes the queue, and starts the first block.
    async fn begin(options: impl FnOnce(&mut KubernetesProviderConfig)) -> Self {
        let mut world = Self::new(options).await;
        assert_eq!(world.provider.list().await.expect("a list"), []);
        world.provider.hold(true);
        world.provider.start(FIRST);
        world
    }

    async fn next(&mut self) -> ProviderEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("an event comes").expect("the provider lives");
        println!("{event:?}");
        event
    }

    /// The first event of which something is made.
    async fn until<T>(&mut self, found: impl Fn(&ProviderEvent) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            if let Some(found) = found(&event) {
                return found;
            }
        }
    }

    /// What is made of the next state of a block of which something is.
    async fn until_state<T>(&mut self, id: BlockId, found: impl Fn(&BlockState) -> Option<T>) -> T {
        self.until(|event| {
            let ProviderEvent::Observed { block, state } = event else {
                return None;
            };
            if *block == id { found(state) } else { None }
        })
        .await
    }

    async fn started(&mut self) -> StartOutcome {
        self.until(|event| {
            let ProviderEvent::Started { outcome, .. } = event else {
                return None;
            };
            Some(outcome.clone())
        })
        .await
    }

    async fn running(&mut self, id: BlockId) {
        self.until_state(id, |state| (*state == BlockState::Running).then_some(()))
            .await;
    }

    async fn ended(&mut self, id: BlockId) -> BlockEnd {
        self.until_state(id, |state| {
            let BlockState::Ended(end) = state else { return None };
            Some(end.clone())
        })
        .await
    }

    async fn ending(&mut self, id: BlockId) -> BlockEnd {
        self.until_state(id, |state| {
            let BlockState::Ending(end) = state else { return None };
            Some(end.clone())
        })
        .await
    }

    async fn waiting(&mut self, cause: WaitingCause) -> Waiting {
        self.until_state(FIRST, |state| {
            let BlockState::Pending { why: Some(waiting) } = state else {
                return None;
            };
            (waiting.cause == cause).then(|| waiting.clone())
        })
        .await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until there is no pod and no block's Secret but those.
    async fn left(&self, pods: &[&str]) {
        let selector = ListParams::default().labels("app.kubernetes.io/name=waypost-worker");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.pods().list(&selector).await.unwrap();
            let names: Vec<String> = found.items.into_iter().filter_map(|pod| pod.metadata.name).collect();
            let secrets = self.secrets().list(&selector).await.unwrap().items.len();
            if names == pods && secrets == 0 {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{names:?} and {secrets} Secrets are left, not {pods:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn name(&self, block: BlockId) -> String {
        self.settings.names.name(block)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(Client::try_default().await?);
                namespaces.delete(&namespace, &DeleteParams::default()).await?;
                Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
            })
        });
        if let Ok(Err(error)) = deleted.join() {
            eprintln!("the namespace is left: {error}");
        }
    }
}

fn provider(
    settings: &KubernetesSettings,
    client: &Client,
) -> (KubernetesProvider, mpsc::UnboundedReceiver<ProviderEvent>) {
    let deployment = Deployment {
        endpoint_id: settings.endpoint_id,
        ..Deployment::default()
    };
    let cluster = Cluster::with_client(deployment, client.clone());
    let (sender, events) = mpsc::unbounded_channel();
    (KubernetesProvider::new(settings.clone(), cluster, sender), events)
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_pod_comes_with_its_secret_and_both_go() {
    let mut world = World::begin(|_| {}).await;
    let outcome = world.started().await;
    assert_eq!(outcome, StartOutcome::Started);
    world.running(FIRST).await;
    let name = world.name(FIRST);
    let pod = world.pods().get(&name).await.expect("the pod has the block's name");
    let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller, owner.block_owner_deletion),
        ("ConfigMap", Some(true), Some(false))
    );
    let secret = world.secrets().get(&name).await.expect("the Secret has it, too");
    assert_eq!(secret.data.unwrap()["token"].0, format!("token of {name}").into_bytes());
    world.provider.delete(FIRST);
    let end = world.ended(FIRST).await;
    assert!(end.output.contains("it is up"), "what it printed last is told: {end:?}");
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_worker_that_dies_at_once_is_told_with_its_last_lines_and_its_pod_is_removed() {
    let mut world =
        World::begin(|config| config.worker_init = "echo no such module $(echo here) $$; exit 3".to_owned()).await;
    let end = world.ended(FIRST).await;
    assert_eq!(end.kind, BlockEndKind::Crashed);
    assert!(end.message.contains("exit code 3"), "{}", end.message);
    assert!(
        end.output.contains("no such module here 1"),
        "the shell's own words reach it: {}",
        end.output
    );
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn an_out_of_memory_kill_is_told_with_limit_and_node() {
    let hog = "exec python3 -c \"a = b'x' * (1 << 30)\"".to_owned();
    let mut world = World::begin(|config| config.worker_init = hog).await;
    let end = world.ended(FIRST).await;
    assert_eq!(
        (end.kind, end.memory_limit),
        (BlockEndKind::OutOfMemory, Some(128 << 20))
    );
    assert!(
        end.message.contains("OOMKilled") && end.message.contains("128Mi"),
        "{}",
        end.message
    );
    assert!(end.message.contains(" on node "), "{}", end.message);
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_worker_that_ends_beside_a_sidecar_that_does_not_is_removed_at_once() {
    let sidecar = json!([{"name": "proxy", "image": variable("WAYPOST_TEST_IMAGE"), "imagePullPolicy": "Never",
                          "command": ["sleep", "1000"]}]);
    let mut world = World::begin(|config| {
        config.sidecars = serde_json::from_value(sidecar).unwrap();
        config.worker_init = "exit 0".to_owned();
    })
    .await;
    assert_eq!(world.ended(FIRST).await.kind, BlockEndKind::Completed);
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_pod_that_no_node_takes_says_the_schedulers_words_and_an_event_does() {
    let mut world = World::begin(|config| {
        config
            .node_selector
            .insert("waypost.test/none".to_owned(), "such".to_owned());
    })
    .await;
    let waiting = world.waiting(WaitingCause::Scheduling).await;
    assert!(waiting.text.contains("nodes are available"), "{}", waiting.text);
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        if found
            .iter()
            .any(|event| event.reason.as_deref() == Some("BlockUnschedulable"))
        {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no Event: {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.provider.delete(FIRST);
    world.ended(FIRST).await;
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn images_and_secrets_that_are_not_there_are_told_apart_by_whether_they_may_come() {
    let mut world = World::begin(|config| config.image = "localhost/no-such:image".to_owned()).await;
    let never = world.waiting(WaitingCause::Never).await;
    assert!(never.text.contains("ErrImageNeverPull"), "{}", never.text);

    let mut world = World::begin(|config| {
        config.image = "127.0.0.1:1/no-such:image".to_owned();
        config.image_pull_policy = None;
    })
    .await;
    let later = world.waiting(WaitingCause::Image).await;
    assert!(later.text.contains("127.0.0.1:1/no-such:image"), "{}", later.text);

    let mut world = World::begin(|config| {
        config.env = serde_json::from_value(
            json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no-such", "key": "k"}}}]),
        )
        .unwrap();
    })
    .await;
    let never = world.waiting(WaitingCause::Never).await;
    assert!(never.text.contains("CreateContainerConfigError"), "{}", never.text);

    let mut world = World::begin(|config| {
        config.volumes = serde_json::from_value(json!([{"name": "v", "secret": {"secretName": "no-such"}}])).unwrap();
        config.volume_mounts = serde_json::from_value(json!([{"name": "v", "mountPath": "/v"}])).unwrap();
    })
    .await;
    let never = world.waiting(WaitingCause::Never).await;
    assert!(
        never.text.contains("FailedMount") && never.text.contains("no-such"),
        "{}",
        never.text
    );
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_pod_deleted_by_hand_and_one_evicted_are_told_while_they_end_and_after() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    let slow = DeleteParams::default().grace_period(5);
    world.pods().delete(&world.name(FIRST), &slow).await.unwrap();
    assert_eq!(world.ending(FIRST).await.kind, BlockEndKind::Deleted);
    let end = world.ended(FIRST).await;
    assert!(
        matches!(end.kind, BlockEndKind::Deleted | BlockEndKind::Completed),
        "{end:?}"
    );
    world.provider.start(SECOND);
    world.running(SECOND).await;
    world
        .pods()
        .evict(&world.name(SECOND), &EvictParams::default())
        .await
        .unwrap();
    assert_eq!(world.ending(SECOND).await.kind, BlockEndKind::Drained);
    assert_eq!(world.ended(SECOND).await.kind, BlockEndKind::Drained);
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_quota_is_told_in_words_and_leaves_nothing() {
    let mut world = World::new(|_| {}).await;
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    world.provider.list().await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The quota counts once its controller has seen it.
    while quotas
        .get("none")
        .await
        .unwrap()
        .status
        .and_then(|status| status.hard)
        .is_none()
    {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        matches!(world.provider.check().await, Err(CheckError::Doubtful(words)) if words.contains("exceeded quota"))
    );
    world.provider.start(FIRST);
    let outcome = world.started().await;
    let StartOutcome::Failed(end) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(end.kind, BlockEndKind::CannotStart);
    assert!(end.message.contains("exceeded quota: none"), "{}", end.message);
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_missing_permission_is_told_by_its_verb_and_resource() {
    let world = World::new(|_| {}).await;
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:nobody", world.namespace));
    let nobody = Client::try_from(config).unwrap();
    let (mut provider, _events) = provider(&world.settings, &nobody);
    let Err(CheckError::Doubtful(words)) = provider.check().await else {
        panic!("it may do nothing");
    };
    assert!(
        words.contains("lacks the verb `get` on the resource `configmaps`"),
        "{words}"
    );
    let listed = provider.list().await.expect_err("it may not list");
    assert!(listed.to_string().contains("cannot list resource \"pods\""), "{listed}");
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn the_defaults_pass_the_restricted_standard_and_what_can_never_be_is_refused_at_the_start() {
    let restricted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let mut world = World::labelled(restricted.clone(), |_| {}).await;
    world.provider.check().await.expect("the defaults are restricted");
    let mut root = World::labelled(restricted, |config| {
        config.user_id = Some(0);
        config.run_as_non_root = Some(false);
    })
    .await;
    let refused = root.provider.check().await.expect_err("root is not restricted");
    assert!(
        matches!(&refused, CheckError::Refused(words) if words.contains("PodSecurity")),
        "{refused}"
    );
    let mut invalid = World::new(|config| config.init_mem = quantity("1Gi")).await;
    let refused = invalid
        .provider
        .check()
        .await
        .expect_err("more is requested than is the limit");
    assert!(
        matches!(&refused, CheckError::Refused(words) if words.contains("init_mem")),
        "{refused}"
    );
    let mut nowhere = World::new(|config| config.namespace = "no-such-namespace".to_owned()).await;
    let doubted = nowhere.provider.check().await.expect_err("there is no such namespace");
    assert!(doubted.to_string().contains("no-such-namespace"), "{doubted}");
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn the_next_agent_finds_the_blocks_of_the_one_before_and_what_became_of_them() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    world.provider.start(SECOND);
    world.running(SECOND).await;
    let (next, events) = provider(&world.settings, &world.client);
    drop(std::mem::replace(&mut world.provider, next));
    drop(std::mem::replace(&mut world.events, events));
    // A worker that ended while no agent was there.
    let kill = world
        .pods()
        .delete(&world.name(SECOND), &DeleteParams::default().grace_period(30))
        .await;
    kill.expect("it is deleted");
    let listed = world.provider.list().await.unwrap();
    assert!(listed.contains(&FIRST), "{listed:?}");
    world.provider.hold(true);
    world.running(FIRST).await;
    world.provider.delete(FIRST);
    world.ended(FIRST).await;
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn so_many_failed_pods_are_kept_as_are_asked_for() {
    let mut world = World::begin(|config| {
        config.worker_init = "exit 1".to_owned();
        config.keep_failed_pods = KeptPods {
            count: 1,
            age: Duration::from_secs(3600),
        };
    })
    .await;
    world.ended(FIRST).await;
    world.provider.start(SECOND);
    world.ended(SECOND).await;
    let kept = world.name(SECOND);
    world.left(&[&kept]).await;
    let (mut next, _events) = provider(&world.settings, &world.client);
    assert_eq!(next.list().await.unwrap(), [], "a kept pod is no block");
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn deleting_the_anchor_deletes_everything_of_the_endpoint() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    let anchors: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
    let digits = world.settings.endpoint_id.simple().to_string();
    let anchor = format!("waypost-{}", &digits[..8]);
    anchors
        .delete(&anchor, &DeleteParams::background())
        .await
        .expect("the provider made it");
    assert_eq!(world.ended(FIRST).await.kind, BlockEndKind::Deleted);
    world.left(&[]).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn autoscalers_are_told_which_pods_are_busy() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    let name = world.name(FIRST);
    let says = async |world: &World, busy: bool| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let annotations = world
                .pods()
                .get(&name)
                .await
                .unwrap()
                .metadata
                .annotations
                .unwrap_or_default();
            let safe = annotations
                .get("cluster-autoscaler.kubernetes.io/safe-to-evict")
                .map(String::as_str);
            if (safe == Some("false")) == busy {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{annotations:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    says(&world, true).await;
    world.provider.busy(FIRST, false);
    says(&world, false).await;
    world.provider.busy(FIRST, true);
    says(&world, true).await;
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_preempted_pod_is_told_to_be() {
    let mut world = World::new(|config| {
        config
            .extra_requests
            .insert("waypost.test/seat".to_owned(), quantity("1"));
        config
            .extra_limits
            .insert("waypost.test/seat".to_owned(), quantity("1"));
    })
    .await;
    // One seat on the node, so that only one of the two pods has room.
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.client.clone());
    let node = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0)
        .metadata
        .name
        .unwrap();
    let seat = json!({"status": {"capacity": {"waypost.test/seat": "1"}, "allocatable": {"waypost.test/seat": "1"}}});
    nodes
        .patch_status(&node, &PatchParams::default(), &Patch::Merge(seat))
        .await
        .unwrap();
    let classes: Api<k8s_openapi::api::scheduling::v1::PriorityClass> = Api::all(world.client.clone());
    let class = world.namespace.clone();
    let high = serde_json::from_value(json!({"metadata": {"name": class}, "value": 1000})).unwrap();
    classes.create(&PostParams::default(), &high).await.unwrap();
    world.provider.list().await.unwrap();
    world.provider.hold(true);
    world.provider.start(FIRST);
    world.running(FIRST).await;
    let other: Pod = serde_json::from_value(json!({
        "metadata": {"name": "important"},
        "spec": {"priorityClassName": class, "containers": [{
            "name": "it", "image": variable("WAYPOST_TEST_IMAGE"), "imagePullPolicy": "Never", "command": ["sleep", "1000"],
            "resources": {"limits": {"waypost.test/seat": "1"}}
        }]}
    }))
    .unwrap();
    world.pods().create(&PostParams::default(), &other).await.unwrap();
    let ending = world.ending(FIRST).await;
    assert_eq!(ending.kind, BlockEndKind::Preempted, "{ending:?}");
    let end = world.ended(FIRST).await;
    assert_eq!(end.kind, BlockEndKind::Preempted, "{end:?}");
    classes.delete(&class, &DeleteParams::default()).await.unwrap();
}
