//! A checker that never complains proves nothing: each of these mistakes in the engine must be seen.

use waypost_engine::Mutation;
use waypost_simulator::{Options, Verdict, run};

/// How many seeds a mistake may survive.
const SEEDS: u64 = 300;

/// The first verdict of a seed in which the engine makes the mistake and does not get away with it.
#[track_caller]
fn caught(mutation: Mutation) -> Verdict {
    for seed in 1..=SEEDS {
        let verdict = run(&Options::draw(seed), &|engine| engine.mutate(mutation));
        if !matches!(verdict, Verdict::Passed(_)) {
            return verdict;
        }
    }
    panic!("{mutation:?} survived {SEEDS} seeds");
}

#[track_caller]
fn caught_as_unsafe(mutation: Mutation, words: &[&str]) {
    match caught(mutation) {
        Verdict::Safety(what) if words.iter().any(|words| what.contains(words)) => {}
        verdict => panic!("{mutation:?} was seen as {verdict:?}"),
    }
}

#[track_caller]
fn caught_as_stuck(mutation: Mutation) {
    let verdict = caught(mutation);
    assert!(
        matches!(verdict, Verdict::Liveness(_)),
        "{mutation:?} was seen as {verdict:?}"
    );
}

#[test]
fn an_acknowledgement_before_the_confirm_is_seen() {
    caught_as_unsafe(Mutation::AckEarly, &["neither the broker nor the journal"]);
}

#[test]
fn an_acknowledgement_over_open_deliveries_is_seen() {
    caught_as_unsafe(
        Mutation::AckOverOpen,
        &["neither the broker nor the journal", "acknowledged twice"],
    );
}

#[test]
fn a_returned_result_taken_for_confirmed_is_seen() {
    caught_as_unsafe(Mutation::TrustReturned, &["neither the broker nor the journal"]);
}

#[test]
fn a_result_that_the_journal_has_and_nobody_publishes_is_seen() {
    caught_as_unsafe(Mutation::ForgetResults, &["is not the one in the journal"]);
}

#[test]
fn a_forgotten_dedupe_is_seen() {
    caught_as_unsafe(Mutation::ForgetDedupe, &["is begun"]);
}

#[test]
fn a_forgotten_memory_of_the_settled_is_seen() {
    caught_as_unsafe(Mutation::ForgetSettled, &["is begun", "two results"]);
}

#[test]
fn a_redelivered_task_started_at_once_is_seen() {
    caught_as_unsafe(Mutation::StartRedeliveredAtOnce, &["is begun"]);
}

#[test]
fn more_tasks_than_credit_are_seen() {
    caught_as_unsafe(Mutation::IgnoreCredit, &["without credit"]);
}

#[test]
fn a_task_for_a_draining_worker_is_seen() {
    caught_as_unsafe(Mutation::DispatchToDraining, &["drains"]);
}

#[test]
fn the_end_of_a_busy_block_is_seen() {
    caught_as_unsafe(Mutation::DeleteBusyBlock, &["has something to do", "without work"]);
}

#[test]
fn a_block_ended_in_a_gap_between_two_tasks_is_seen() {
    caught_as_unsafe(Mutation::EndAtOnce, &["has something to do", "without work"]);
}

#[test]
fn starts_without_a_pause_are_seen() {
    caught_as_unsafe(Mutation::NoStartBackOff, &["within a minute"]);
}

#[test]
fn tasks_that_are_not_told_that_no_block_starts_are_seen() {
    caught_as_unsafe(Mutation::TellNobody, &["in vain"]);
}

#[test]
fn a_deletion_by_who_does_not_hold_the_queue_is_seen() {
    caught_as_unsafe(Mutation::ActWithoutQueue, &["somebody else"]);
}

#[test]
fn a_forgotten_fence_is_seen() {
    caught_as_unsafe(
        Mutation::ForgetFence,
        &["somebody else may hold the queue", "stands by"],
    );
}

#[test]
fn workers_kept_by_who_stands_by_are_seen() {
    caught_as_unsafe(Mutation::KeepWorkers, &["stands by does more than publish"]);
}

#[test]
fn a_task_for_a_block_that_the_platform_ends_is_seen() {
    caught_as_unsafe(Mutation::IgnoreEnding, &["drains"]);
}

#[test]
fn more_blocks_than_may_exist_are_seen() {
    caught_as_unsafe(Mutation::IgnoreCap, &["may exist"]);
}

#[test]
fn a_message_refreshed_until_the_broker_drops_it_is_seen() {
    caught_as_unsafe(Mutation::IgnoreCount, &["the broker dropped"]);
}

#[test]
fn a_block_that_is_left_behind_is_seen() {
    caught_as_stuck(Mutation::TrustDeletion);
}

#[test]
fn lost_credit_is_seen() {
    caught_as_stuck(Mutation::LoseCredit);
}

#[test]
fn a_dropped_publish_is_seen() {
    caught_as_stuck(Mutation::DropUnknownPublish);
}

#[test]
fn lost_unbegun_tasks_are_seen() {
    let verdict = caught(Mutation::LoseUnbegun);
    assert!(
        matches!(verdict, Verdict::Liveness(_) | Verdict::Crash(_)),
        "{verdict:?}"
    );
}
