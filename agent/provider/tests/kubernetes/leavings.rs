//! What pods leave to those who come after: the next agent, a person, an autoscaler.

use std::time::Duration;

use endpoint_config::KeptPods;
use endpoint_provider::Provider as _;
use kube::api::DeleteParams;

use crate::world::{FIRST, SECOND, World, provider, until};

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
async fn autoscalers_are_told_which_pods_are_busy() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    let name = world.name(FIRST);
    let says = async |world: &World, busy: bool| {
        until(&format!("the pod says that it is busy: {busy}"), async || {
            let annotations = world.pods().get(&name).await.unwrap().metadata.annotations;
            let annotations = annotations.unwrap_or_default();
            let safe = annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict");
            (safe.map(String::as_str) == Some("false")) == busy
        })
        .await;
    };
    says(&world, true).await;
    world.provider.busy(FIRST, false);
    says(&world, false).await;
    world.provider.busy(FIRST, true);
    says(&world, true).await;
}
