//! What others do to pods.

use endpoint_provider::Provider as _;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use waypost_engine::BlockEndKind;

use crate::world::{FIRST, SECOND, World, quantity, variable};

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_pod_deleted_by_hand_and_one_evicted_are_told_while_they_end_and_after() {
    let mut world = World::begin(|_| {}).await;
    world.running(FIRST).await;
    let slow = DeleteParams::default().grace_period(5);
    world.pods().delete(&world.name(FIRST), &slow).await.unwrap();
    assert_eq!(world.ending(FIRST).await.kind, BlockEndKind::Deleted);
    assert_eq!(world.ended(FIRST).await.kind, BlockEndKind::Deleted);
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
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        // Other tests may have brought nodes of their own, which others' pods do not tolerate.
        .find(|node| node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_none())
        .and_then(|node| node.metadata.name)
        .unwrap();
    let seat = json!({"status": {"capacity": {"waypost.test/seat": "1"}, "allocatable": {"waypost.test/seat": "1"}}});
    nodes
        .patch_status(&node, &PatchParams::default(), &Patch::Merge(seat))
        .await
        .unwrap();
    let classes: Api<PriorityClass> = Api::all(world.client.clone());
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
    let seat = json!({"status": {"capacity": {"waypost.test/seat": null}, "allocatable": {"waypost.test/seat": null}}});
    nodes
        .patch_status(&node, &PatchParams::default(), &Patch::Merge(seat))
        .await
        .unwrap();
}
