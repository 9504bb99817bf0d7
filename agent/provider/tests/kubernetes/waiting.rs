//! Pods that do not run yet, and why.

use endpoint_provider::Provider as _;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use waypost_engine::WaitingCause;

use crate::world::{FIRST, World, until};

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
    until("an Event tells it", async || {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        found
            .iter()
            .any(|event| event.reason.as_deref() == Some("BlockUnschedulable"))
    })
    .await;
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
