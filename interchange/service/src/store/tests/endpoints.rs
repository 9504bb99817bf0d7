use uuid::Uuid;

use super::{ENDPOINT, NOW, OWNER, arrival, endpoint, on_each_database, submit};
use crate::store::{EndpointKind, HeartbeatOutcome, Store};

on_each_database!(
    heartbeats_make_an_endpoint_online_until_three_are_missed,
    a_new_registration_waits_for_a_heartbeat_of_its_own,
    the_registration_comes_back_as_it_was_given,
    deleting_a_template_endpoint_deletes_its_user_endpoints,
    locking_changes_the_passwords_of_all_user_endpoints,
    a_silent_user_endpoint_with_work_is_nudged_once_in_a_while,
    an_unused_user_endpoint_is_retired_and_comes_back_when_needed,
);

const ID: Uuid = Uuid::from_u128(ENDPOINT);
const PARENT: u128 = 40;

async fn is_online(store: &Store, id: Uuid, now: i64) -> bool {
    store.endpoint(id).await.unwrap().unwrap().is_online(now)
}

async fn heartbeats_make_an_endpoint_online_until_three_are_missed(store: Store) {
    store
        .create_endpoint(&endpoint(ENDPOINT, EndpointKind::Direct, OWNER, None))
        .await
        .unwrap();
    assert!(!is_online(&store, ID, NOW).await);
    let beat = async |now, period| store.heartbeat(ID, now, period, "{}").await.unwrap();
    assert_eq!(beat(NOW, 1_000).await, HeartbeatOutcome::CameOnline);
    assert_eq!(beat(NOW + 1_000, 1_000).await, HeartbeatOutcome::Same);
    assert!(is_online(&store, ID, NOW + 8_999).await);
    assert!(!is_online(&store, ID, NOW + 9_000).await);
    assert_eq!(beat(NOW + 9_000, 1_000).await, HeartbeatOutcome::CameOnline);
    assert_eq!(beat(NOW + 9_001, 0).await, HeartbeatOutcome::Stopped);
    assert!(!is_online(&store, ID, NOW + 9_001).await);
    assert_eq!(
        store.heartbeat(Uuid::from_u128(99), NOW, 1, "{}").await.unwrap(),
        HeartbeatOutcome::Unknown
    );
}

async fn a_new_registration_waits_for_a_heartbeat_of_its_own(store: Store) {
    let known = endpoint(ENDPOINT, EndpointKind::Template, OWNER, None);
    store.create_endpoint(&known).await.unwrap();
    store.heartbeat(ID, NOW, 30_000, "{}").await.unwrap();
    store.update_endpoint(ID, &known.registration, NOW + 1).await.unwrap();
    assert!(!is_online(&store, ID, NOW + 1).await);
    let outcome = store.heartbeat(ID, NOW + 2, 30_000, "{}").await.unwrap();
    assert_eq!(outcome, HeartbeatOutcome::CameOnline);
}

async fn the_registration_comes_back_as_it_was_given(store: Store) {
    let mut given = endpoint(ENDPOINT, EndpointKind::Template, OWNER, None);
    given.registration.allowed_functions = Some(vec![Uuid::from_u128(7)]);
    given.registration.admins = vec![Uuid::from_u128(8)];
    given.registration.public = true;
    store.create_endpoint(&given).await.unwrap();
    let known = store.endpoint(ID).await.unwrap().unwrap();
    assert_eq!(known.registration.kind, EndpointKind::Template);
    assert!(known.registration.public && !known.registration.multi_user);
    assert!(known.allows(Uuid::from_u128(7)) && !known.allows(Uuid::from_u128(9)));
    assert!(known.is_managed_by(Uuid::from_u128(8)) && known.is_managed_by(Uuid::from_u128(OWNER)));
    assert!(!known.is_managed_by(Uuid::from_u128(9)));
    let seen = async |who| store.endpoints_of(Uuid::from_u128(who), true).await.unwrap().len();
    assert_eq!(seen(9).await, 1, "a public endpoint is seen by all who ask for any");
    assert!(store.endpoints_of(Uuid::from_u128(9), false).await.unwrap().is_empty());
}

async fn family(store: &Store) {
    store
        .create_endpoint(&endpoint(PARENT, EndpointKind::Template, OWNER, None))
        .await
        .unwrap();
    store
        .create_endpoint(&endpoint(ENDPOINT, EndpointKind::User, OWNER, Some(PARENT)))
        .await
        .unwrap();
}

async fn deleting_a_template_endpoint_deletes_its_user_endpoints(store: Store) {
    family(&store).await;
    store.delete_endpoint(Uuid::from_u128(PARENT), NOW).await.unwrap();
    assert!(store.endpoint(ID).await.unwrap().is_none());
    let mut uncleaned = store.uncleaned_endpoints().await.unwrap();
    uncleaned.sort_by_key(|(id, _)| *id);
    assert_eq!(
        uncleaned,
        [
            (ID, EndpointKind::User),
            (Uuid::from_u128(PARENT), EndpointKind::Template)
        ]
    );
    store.mark_cleaned(ID, NOW).await.unwrap();
    assert_eq!(store.uncleaned_endpoints().await.unwrap().len(), 1);
    assert!(
        store.revive_user_endpoint(ID).await.unwrap().is_none(),
        "its template endpoint is deleted"
    );
}

async fn locking_changes_the_passwords_of_all_user_endpoints(store: Store) {
    family(&store).await;
    store.set_endpoint_broker_user(ID, NOW).await.unwrap();
    store.lock_endpoint(Uuid::from_u128(PARENT), NOW + 5).await.unwrap();
    let child = store.endpoint(ID).await.unwrap().unwrap();
    assert_eq!((child.rotation, child.has_broker_user()), (1, false));
    let parent = store.endpoint(Uuid::from_u128(PARENT)).await.unwrap().unwrap();
    assert_eq!((parent.rotation, parent.locked_until), (1, NOW + 5));
}

async fn a_silent_user_endpoint_with_work_is_nudged_once_in_a_while(store: Store) {
    family(&store).await;
    submit(&store, &[10], NOW).await;
    let nudged = async |before, now| store.nudge_silent_user_endpoints(before, now).await.unwrap();
    assert!(
        nudged(NOW + 1, NOW + 60).await.is_empty(),
        "its template endpoint is offline"
    );
    store
        .heartbeat(Uuid::from_u128(PARENT), NOW + 60, 30_000, "{}")
        .await
        .unwrap();
    assert_eq!(nudged(NOW + 1, NOW + 60).await, [ID]);
    assert!(nudged(NOW + 1, NOW + 61).await.is_empty(), "it was nudged a moment ago");
    store.heartbeat(ID, NOW + 62, 30_000, "{}").await.unwrap();
    assert!(nudged(NOW + 70, NOW + 100).await.is_empty(), "it is there");
}

async fn an_unused_user_endpoint_is_retired_and_comes_back_when_needed(store: Store) {
    family(&store).await;
    submit(&store, &[10], NOW).await;
    assert_eq!(
        store.retire_user_endpoints(NOW + 1, NOW + 9).await.unwrap(),
        0,
        "a task waits for it"
    );
    store
        .store_results(&[arrival(10, Some(ENDPOINT), "r")], NOW + 1)
        .await
        .unwrap();
    assert_eq!(
        store.retire_user_endpoints(NOW, NOW + 9).await.unwrap(),
        0,
        "it had a task since"
    );
    assert_eq!(store.retire_user_endpoints(NOW + 1, NOW + 9).await.unwrap(), 1);
    assert!(store.endpoint(ID).await.unwrap().is_none());
    assert!(store.revive_user_endpoint(ID).await.unwrap().is_some());
}
