//! From a pod that comes to one that has ended.

use endpoint_provider::Provider as _;
use serde_json::json;
use waypost_engine::{BlockEndKind, StartOutcome};

use crate::world::{FIRST, World, variable};

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
    world.printed(FIRST, "it is up").await;
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
    // As the last lines of its log, or as its last message where the kubelet has no time for the log.
    let said = format!("{} {}", end.message, end.output);
    assert!(
        said.contains("no such module here 1"),
        "the shell's own words reach it: {said}"
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
