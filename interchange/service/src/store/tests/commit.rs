use futures_util::future::join_all;
use uuid::Uuid;

use super::{NOW, on_each_database, submission, submit};
use crate::store::{Store, Submission};

on_each_database!(
    calls_that_come_together_are_all_committed,
    a_call_that_is_refused_takes_no_other_with_it,
    a_large_call_is_committed_beside_small_ones,
);

async fn calls_that_come_together_are_all_committed(store: Store) {
    submit(&store, &[1], NOW).await;
    let calls =
        (0..150).map(|number| store.submit(submission(Uuid::from_u128(900 + number), true, &[100 + number], NOW)));
    let settled = store.settle_outbox(vec![Uuid::from_u128(1)], NOW + 1);
    let (outcomes, settled) = tokio::join!(join_all(calls), settled);
    assert!(outcomes.iter().all(Result::is_ok) && settled.is_ok());
    assert_eq!(store.outbox_length().await.unwrap(), 150);
    assert_eq!(store.claim_outbox(NOW, NOW + 1, 500).await.unwrap().len(), 150);
}

async fn a_call_that_is_refused_takes_no_other_with_it(store: Store) {
    submit(&store, &[10], NOW).await;
    let calls = [[11, 12], [13, 10], [14, 15]].map(|ids| {
        let group = Uuid::from_u128(1000 + ids[0]);
        store.submit(submission(group, true, &ids, NOW))
    });
    let outcomes: Vec<bool> = join_all(calls).await.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, true], "there is a task 10 already");
    let known = store
        .tasks(&[11, 12, 13, 14, 15].map(Uuid::from_u128), false)
        .await
        .unwrap();
    assert_eq!(known.len(), 4);
    assert!(
        !known.contains_key(&Uuid::from_u128(13)),
        "of the refused call nothing is kept"
    );
}

async fn a_large_call_is_committed_beside_small_ones(store: Store) {
    submit(&store, &[10], NOW).await;
    let mut large = submission(Uuid::from_u128(901), true, &[11], NOW);
    if let Some(Submission { entries, .. }) = std::sync::Arc::get_mut(&mut large) {
        entries[0].payload = "p".repeat(5 << 20);
    }
    let small = store.submit(submission(Uuid::from_u128(902), true, &[12], NOW));
    let (large, small) = tokio::join!(store.submit(large), small);
    assert!(large.is_ok() && small.is_ok());
    let entries = store.claim_outbox(NOW, NOW + 1, 9).await.unwrap();
    let mut sizes: Vec<usize> = entries.iter().map(|entry| entry.payload.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 10, 5 << 20]);
}
