use uuid::Uuid;

use super::{ENDPOINT, NOW, arrival, endpoint, on_each_database, submit};
use crate::store::{EndpointKind, Store, TaskState};

on_each_database!(
    an_entry_of_the_outbox_holds_all_that_is_published,
    a_claimed_entry_is_left_to_its_replica,
    a_claim_that_is_renewed_holds_and_one_that_is_ended_does_not,
    a_confirmed_task_leaves_the_outbox,
    a_task_that_the_broker_lost_is_published_again_unless_it_has_a_result,
    endpoints_whose_tasks_are_missed_are_found,
    an_endpoint_says_which_of_its_own_tasks_run,
    a_task_that_was_read_is_deleted_after_its_life,
    a_task_that_nobody_reads_is_deleted_much_later,
);

async fn state(store: &Store, id: u128) -> Option<TaskState> {
    let id = Uuid::from_u128(id);
    store
        .tasks(&[id], false)
        .await
        .unwrap()
        .remove(&id)
        .map(|task| task.state)
}

async fn an_entry_of_the_outbox_holds_all_that_is_published(store: Store) {
    submit(&store, &[10], NOW).await;
    assert_eq!(state(&store, 10).await, Some(TaskState::Received));
    let entries = store.claim_outbox(NOW, NOW + 10, 5).await.unwrap();
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(
        (entry.task_id, entry.endpoint_id),
        (Uuid::from_u128(10), Uuid::from_u128(ENDPOINT))
    );
    assert_eq!((&*entry.code, entry.payload.as_str()), ("code", "payload 10"));
    assert_eq!(entry.resource_specification.as_deref(), Some("{\"cores\":1}"));
    assert_eq!(entry.result_serializers, ["a.B"]);
}

async fn a_claimed_entry_is_left_to_its_replica(store: Store) {
    submit(&store, &[10, 11, 12], NOW + 10).await;
    assert!(store.claim_outbox(NOW + 9, NOW + 20, 5).await.unwrap().is_empty());
    assert_eq!(store.claim_outbox(NOW + 10, NOW + 20, 2).await.unwrap().len(), 2);
    assert_eq!(store.claim_outbox(NOW + 10, NOW + 20, 5).await.unwrap().len(), 1);
    assert!(store.claim_outbox(NOW + 10, NOW + 20, 5).await.unwrap().is_empty());
    store.release_outbox().await.unwrap();
    assert_eq!(store.claim_outbox(NOW, NOW + 20, 5).await.unwrap().len(), 3);
}

async fn a_claim_that_is_renewed_holds_and_one_that_is_ended_does_not(store: Store) {
    submit(&store, &[10, 11], NOW + 10).await;
    let gone = Uuid::from_u128(12);
    store
        .renew_claims(&[Uuid::from_u128(10), gone], NOW + 30)
        .await
        .unwrap();
    assert_eq!(
        store.claim_outbox(NOW + 20, NOW + 40, 5).await.unwrap().len(),
        1,
        "of the other"
    );
    store.renew_claims(&[Uuid::from_u128(10)], 0).await.unwrap();
    assert_eq!(store.claim_outbox(NOW + 20, NOW + 40, 5).await.unwrap().len(), 1);
    assert_eq!(store.outbox_length().await.unwrap(), 2);
}

async fn a_confirmed_task_leaves_the_outbox(store: Store) {
    submit(&store, &[10, 11], NOW).await;
    // The result of the second came before the broker's confirm.
    store
        .store_results(&[arrival(11, Some(ENDPOINT), "r")], NOW)
        .await
        .unwrap();
    store
        .settle_outbox(vec![Uuid::from_u128(10), Uuid::from_u128(11)], NOW + 1)
        .await
        .unwrap();
    assert_eq!(store.outbox_length().await.unwrap(), 0);
    assert_eq!(state(&store, 10).await, Some(TaskState::WaitingForEndpoint));
    assert_eq!(state(&store, 11).await, Some(TaskState::Success));
}

async fn a_task_that_the_broker_lost_is_published_again_unless_it_has_a_result(store: Store) {
    submit(&store, &[10, 11, 12, 13], NOW).await;
    // The last one is not confirmed yet: it is to be published in any case.
    let sent = [10, 11, 12].map(Uuid::from_u128).to_vec();
    store.settle_outbox(sent, NOW + 1).await.unwrap();
    store
        .store_results(&[arrival(10, Some(ENDPOINT), "r")], NOW)
        .await
        .unwrap();
    assert_eq!(store.publish_again(Uuid::from_u128(ENDPOINT + 1)).await.unwrap(), 0);
    assert_eq!(store.publish_again(Uuid::from_u128(ENDPOINT)).await.unwrap(), 2);
    assert_eq!(
        store.publish_again(Uuid::from_u128(ENDPOINT)).await.unwrap(),
        0,
        "they are"
    );
    // A result comes before they are.
    store
        .store_results(&[arrival(11, Some(ENDPOINT), "r")], NOW)
        .await
        .unwrap();
    let entries = store.claim_outbox(NOW, NOW + 9, 9).await.unwrap();
    let mut published: Vec<u128> = entries.iter().map(|entry| entry.task_id.as_u128()).collect();
    published.sort_unstable();
    assert_eq!(published, [12, 13]);
    assert_eq!(entries[0].payload, format!("payload {}", entries[0].task_id.as_u128()));
    assert_eq!(store.outbox_length().await.unwrap(), 2);
    // What has a result is in nobody's way.
    store
        .store_results(&[arrival(12, Some(ENDPOINT), "r")], NOW)
        .await
        .unwrap();
    let later = store.claim_outbox(NOW + 9, NOW + 20, 1).await.unwrap();
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].task_id, Uuid::from_u128(13));
}

async fn endpoints_whose_tasks_are_missed_are_found(store: Store) {
    let (template, other) = (ENDPOINT + 1, ENDPOINT + 2);
    for one in [
        endpoint(template, EndpointKind::Template, 1, None),
        endpoint(ENDPOINT, EndpointKind::User, 1, Some(template)),
        endpoint(other, EndpointKind::User, 1, Some(template)),
    ] {
        store.create_endpoint(&one).await.unwrap();
    }
    submit(&store, &[10, 11], NOW).await;
    let missed = async |before| {
        let endpoints = store.endpoints_with_missed_tasks(before).await.unwrap();
        let mut ids: Vec<u128> = endpoints.iter().map(|endpoint| endpoint.id.as_u128()).collect();
        ids.sort_unstable();
        ids
    };
    assert!(missed(NOW).await.is_empty());
    assert_eq!(
        missed(NOW + 1).await,
        [ENDPOINT, template],
        "the broker does not confirm them"
    );
    let sent = [10, 11].map(Uuid::from_u128).to_vec();
    store.settle_outbox(sent, NOW + 1).await.unwrap();
    assert!(missed(NOW + 1).await.is_empty(), "not for long");
    assert_eq!(missed(NOW + 2).await, [ENDPOINT, template]);
    let both = [arrival(10, Some(ENDPOINT), "r"), arrival(11, Some(ENDPOINT), "r")];
    store.store_results(&both, NOW + 3).await.unwrap();
    assert!(missed(NOW + 99).await.is_empty(), "they have results");
}

async fn an_endpoint_says_which_of_its_own_tasks_run(store: Store) {
    submit(&store, &[10, 11], NOW).await;
    store
        .store_results(&[arrival(11, Some(ENDPOINT), "r")], NOW)
        .await
        .unwrap();
    let both = [Uuid::from_u128(10), Uuid::from_u128(11)];
    store.mark_running(Uuid::from_u128(ENDPOINT + 1), &both).await.unwrap();
    assert_eq!(
        state(&store, 10).await,
        Some(TaskState::Received),
        "another endpoint said so"
    );
    store.mark_running(Uuid::from_u128(ENDPOINT), &both).await.unwrap();
    assert_eq!(state(&store, 10).await, Some(TaskState::Running));
    assert_eq!(
        state(&store, 11).await,
        Some(TaskState::Success),
        "it has its result already"
    );
}

async fn a_task_that_was_read_is_deleted_after_its_life(store: Store) {
    submit(&store, &[10, 11], NOW).await;
    let both = [arrival(10, Some(ENDPOINT), "r"), arrival(11, Some(ENDPOINT), "r")];
    store.store_results(&both, NOW + 1).await.unwrap();
    store.mark_fetched(&[Uuid::from_u128(10)], NOW + 2).await.unwrap();
    assert_eq!(store.delete_old_tasks(NOW + 1, 0, 10).await.unwrap(), 0);
    assert_eq!(store.delete_old_tasks(NOW + 2, 0, 10).await.unwrap(), 1);
    assert_eq!(state(&store, 10).await, None);
    assert_eq!(state(&store, 11).await, Some(TaskState::Success), "nobody has read it");
}

async fn a_task_that_nobody_reads_is_deleted_much_later(store: Store) {
    submit(&store, &[10, 11], NOW).await;
    assert_eq!(store.delete_old_tasks(NOW + 99, NOW, 10).await.unwrap(), 0);
    assert_eq!(store.delete_old_tasks(NOW + 99, NOW + 1, 1).await.unwrap(), 1);
    assert_eq!(store.delete_old_tasks(NOW + 99, NOW + 1, 10).await.unwrap(), 1);
    assert_eq!(store.outbox_length().await.unwrap(), 0);
}
