//! What the API server will not have.

use endpoint_provider::{CheckError, Provider as _};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::json;
use waypost_engine::{BlockEndKind, StartOutcome};

use crate::world::{FIRST, World, provider, quantity, until};

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn a_quota_is_told_in_words_and_leaves_nothing() {
    let mut world = World::new(|_| {}).await;
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(world.client.clone(), &world.namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    world.provider.list().await.unwrap();
    until("the quota counts, once its controller has seen it", async || {
        let status = quotas.get("none").await.unwrap().status;
        status.is_some_and(|status| status.hard.is_some())
    })
    .await;
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
    let nobody = account(&world, "nobody").await;
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

/// A client that may do what a service account of the namespace may.
async fn account(world: &World, name: &str) -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:{name}", world.namespace));
    Client::try_from(config).unwrap()
}

#[tokio::test]
#[ignore = "run by ./test cluster"]
async fn what_a_role_lacks_is_told_at_the_start_and_not_when_a_block_needs_it() {
    let world = World::new(|_| {}).await;
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "agent"}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]},
    ]}))
    .unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "agent"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": world.namespace}],
    }))
    .unwrap();
    let roles: Api<Role> = Api::namespaced(world.client.clone(), &world.namespace);
    let bindings: Api<RoleBinding> = Api::namespaced(world.client.clone(), &world.namespace);
    roles.create(&PostParams::default(), &role).await.unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let agent = account(&world, "agent").await;
    let pods: Api<Pod> = Api::namespaced(agent.clone(), &world.namespace);
    until("the Role counts", async || {
        pods.list(&ListParams::default()).await.is_ok()
    })
    .await;
    let (mut provider, _events) = provider(&world.settings, &agent);
    let Err(CheckError::Doubtful(words)) = provider.check().await else {
        panic!("it lacks something");
    };
    assert!(
        words.ends_with("lacks the verb `get` on the resource `pods/log`, the verb `delete` on the resource `secrets`"),
        "{words}"
    );
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
