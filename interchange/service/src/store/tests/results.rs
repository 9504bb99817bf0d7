use uuid::Uuid;

use super::{ENDPOINT, GROUP, NOW, OWNER, arrival, on_each_database, submit};
use crate::store::{Settlement, Store, StoredResult, TaskState};

on_each_database!(
    a_result_is_stored_and_forwarded_once,
    the_first_result_is_final_and_forwarded_until_it_arrived,
    a_result_from_another_endpoint_is_foreign,
    a_large_batch_keeps_its_order,
    results_that_were_not_forwarded_are_found,
);

fn forward(task: u128, body: &'static str, is_first: bool) -> Settlement {
    Settlement::Forward {
        result: StoredResult {
            task_id: Uuid::from_u128(task),
            queue: Some((Uuid::from_u128(OWNER), Uuid::from_u128(GROUP))),
            body: body.as_bytes().into(),
        },
        is_first,
        received_at: NOW,
    }
}

async fn a_result_is_stored_and_forwarded_once(store: Store) {
    submit(&store, &[10], NOW).await;
    let settle = async |arrivals: &[_]| store.store_results(arrivals, NOW + 5).await.unwrap();
    let twice = [arrival(10, Some(ENDPOINT), "a"), arrival(10, Some(ENDPOINT), "a")];
    assert_eq!(settle(&twice).await, [forward(10, "a", true), Settlement::Duplicate]);
    store.mark_forwarded(&[Uuid::from_u128(10)], NOW + 6).await.unwrap();
    assert_eq!(
        settle(&[arrival(10, Some(ENDPOINT), "a")]).await,
        [Settlement::Duplicate]
    );
    assert_eq!(settle(&[arrival(11, Some(ENDPOINT), "a")]).await, [Settlement::Unknown]);
    let task = store
        .tasks(&[Uuid::from_u128(10)], true)
        .await
        .unwrap()
        .remove(&Uuid::from_u128(10))
        .unwrap();
    assert_eq!(task.state, TaskState::Success);
    assert_eq!(
        (task.started_at, task.ended_at, task.finished_at),
        (Some(NOW + 1), None, Some(NOW + 5))
    );
    assert_eq!(task.result.as_deref(), Some(&b"a"[..]));
}

async fn the_first_result_is_final_and_forwarded_until_it_arrived(store: Store) {
    submit(&store, &[10], NOW).await;
    store
        .store_results(&[arrival(10, Some(ENDPOINT), "a")], NOW)
        .await
        .unwrap();
    // The process died before it could forward: the delivery comes again, here with other bytes.
    let again = store
        .store_results(&[arrival(10, Some(ENDPOINT), "b")], NOW)
        .await
        .unwrap();
    assert_eq!(again, [forward(10, "a", false)]);
}

async fn a_result_from_another_endpoint_is_foreign(store: Store) {
    submit(&store, &[10], NOW).await;
    let settled = store
        .store_results(&[arrival(10, Some(ENDPOINT + 1), "a")], NOW)
        .await
        .unwrap();
    assert_eq!(settled, [Settlement::Foreign]);
    let own = store.store_results(&[arrival(10, None, "a")], NOW).await.unwrap();
    assert_eq!(own, [forward(10, "a", true)], "the service itself may give up a task");
}

async fn a_large_batch_keeps_its_order(store: Store) {
    let ids: Vec<u128> = (1_000..4_000).collect();
    submit(&store, &ids, NOW).await;
    let arrivals: Vec<_> = ids.iter().rev().map(|id| arrival(*id, Some(ENDPOINT), "a")).collect();
    let expected: Vec<_> = ids.iter().rev().map(|id| forward(*id, "a", true)).collect();
    assert_eq!(store.store_results(&arrivals, NOW).await.unwrap(), expected);
    assert_eq!(
        store.group_tasks(Uuid::from_u128(GROUP)).await.unwrap().len(),
        ids.len()
    );
    assert!(
        store
            .unfinished_tasks(Uuid::from_u128(ENDPOINT))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn results_that_were_not_forwarded_are_found(store: Store) {
    submit(&store, &[10, 11], NOW).await;
    store
        .store_results(&[arrival(10, None, "a"), arrival(11, None, "b")], NOW)
        .await
        .unwrap();
    store.mark_forwarded(&[Uuid::from_u128(11)], NOW).await.unwrap();
    assert!(store.unforwarded_results(NOW, 10).await.unwrap().is_empty());
    let left = store.unforwarded_results(NOW + 1, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].task_id, &left[0].body[..]), (Uuid::from_u128(10), &b"a"[..]));
}
