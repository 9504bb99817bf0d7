use uuid::Uuid;

use super::{ENDPOINT, GROUP, NOW, arrival, on_each_database, submit};
use crate::store::Store;

on_each_database!(
    a_queue_is_retired_only_after_it_was_idle_for_a_while,
    a_submit_takes_the_queue_back_from_housekeeping,
    a_queue_that_can_not_be_removed_stays,
    a_queue_with_unfinished_tasks_is_no_candidate,
);

const ID: Uuid = Uuid::from_u128(GROUP);

async fn finished(store: &Store) {
    submit(store, &[10], NOW).await;
    store
        .store_results(&[arrival(10, Some(ENDPOINT), "r")], NOW + 1)
        .await
        .unwrap();
    store.mark_forwarded(&[Uuid::from_u128(10)], NOW + 2).await.unwrap();
}

async fn candidates(store: &Store, before: i64) -> usize {
    store.groups_with_idle_work(before).await.unwrap().len()
}

async fn a_queue_is_retired_only_after_it_was_idle_for_a_while(store: Store) {
    finished(&store).await;
    assert_eq!(candidates(&store, NOW).await, 0, "it was declared a moment ago");
    assert_eq!(candidates(&store, NOW + 1).await, 1);
    assert!(
        !store.retire_queue(ID, NOW + 99, NOW, async { true }).await.unwrap(),
        "it was not seen idle"
    );
    store.set_queue_idle(&[ID], Some(NOW + 5)).await.unwrap();
    assert!(!store.retire_queue(ID, NOW + 5, NOW, async { true }).await.unwrap());
    assert!(store.retire_queue(ID, NOW + 6, NOW, async { true }).await.unwrap());
    let group = store.group(ID).await.unwrap().unwrap();
    assert_eq!((group.queue_at, group.queue_idle_since), (0, None));
    assert_eq!(
        store.delete_old_tasks(NOW + 100, 0, 10).await.unwrap(),
        1,
        "its results count as read"
    );
    assert_eq!(store.delete_empty_groups(NOW + 100).await.unwrap(), 1);
}

async fn a_submit_takes_the_queue_back_from_housekeeping(store: Store) {
    finished(&store).await;
    store.set_queue_idle(&[ID], Some(NOW)).await.unwrap();
    store.use_group(ID, NOW + 9).await.unwrap();
    assert!(!store.retire_queue(ID, NOW + 99, NOW, async { true }).await.unwrap());
}

async fn a_queue_that_can_not_be_removed_stays(store: Store) {
    finished(&store).await;
    store.set_queue_idle(&[ID], Some(NOW)).await.unwrap();
    assert!(!store.retire_queue(ID, NOW + 99, NOW, async { false }).await.unwrap());
    assert_eq!(store.group(ID).await.unwrap().unwrap().queue_at, NOW);
}

async fn a_queue_with_unfinished_tasks_is_no_candidate(store: Store) {
    finished(&store).await;
    submit(&store, &[11], NOW).await;
    assert_eq!(candidates(&store, NOW + 99).await, 0);
    store.set_queue_idle(&[ID], Some(NOW)).await.unwrap();
    assert!(!store.retire_queue(ID, NOW + 99, NOW, async { true }).await.unwrap());
    store.forget_queues(&[ID], NOW + 99).await.unwrap();
    assert_eq!(store.group(ID).await.unwrap().unwrap().queue_at, 0);
}
