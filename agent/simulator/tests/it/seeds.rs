//! Many seeds, and single ones that once failed.

use std::collections::BTreeMap;

use waypost_simulator::{Marks, Options, Verdict, run};

/// What must have been seen in a thousand seeds for them to mean something: the name of a mark, and how often at least.
const MARKS: [(&str, u64); 30] = [
    ("redelivery before redial", 100),
    ("redial before redelivery", 100),
    ("hello with a result whose task is acknowledged", 10),
    ("task_adopted", 100),
    ("task_redelivered", 500),
    ("settled_task_redelivered", 100),
    ("task_retried", 100),
    ("task_failed", 100),
    ("task_recalled", 100),
    ("task_given_back", 100),
    ("delivery_refreshed", 50),
    ("task_run_twice", 10),
    ("publish_failed", 500),
    ("journal_failed", 10),
    ("held_bytes_exceeded", 10),
    ("worker_given_up", 100),
    ("block_start_failed", 100),
    ("block_waiting", 100),
    ("block_ending", 100),
    ("circuit_opened", 20),
    ("circuit_closed", 10),
    ("block_draining", 100),
    ("block_deleting", 100),
    ("restart_settled", 1000),
    ("dropped by the broker", 100),
    ("result_kept", 50),
    ("a second agent", 50),
    ("stands by", 100),
    ("begins again", 100),
    ("the queue goes to another agent", 20),
];

#[test]
fn a_thousand_seeds_are_safe_and_live() {
    let mut seen = Marks::new();
    let mut failures = Vec::new();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let parts: Vec<Vec<(u64, Verdict)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    let seeds = (1..=1000).skip(part).step_by(threads);
                    seeds.map(|seed| (seed, run(&Options::draw(seed), &|_| {}))).collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a panic is a verdict"))
            .collect()
    });
    for (seed, verdict) in parts.into_iter().flatten() {
        match verdict {
            Verdict::Passed(report) => {
                for (name, count) in report.marks {
                    *seen.entry(name).or_default() += count;
                }
            }
            failure => failures.push((seed, failure)),
        }
    }
    assert!(
        failures.is_empty(),
        "replay with `cargo run --release -p waypost-simulator -- --seed N --trace`: {failures:#?}"
    );
    let missing: BTreeMap<&str, u64> = MARKS
        .into_iter()
        .map(|(name, _)| (name, seen.get(name).copied().unwrap_or(0)))
        .filter(|(name, count)| MARKS.iter().any(|(known, least)| known == name && count < least))
        .collect();
    assert!(missing.is_empty(), "what was seen too seldom: {missing:?} of {seen:?}");
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 1..=20 {
        let options = Options::draw(seed);
        assert_eq!(run(&options, &|_| {}), run(&options, &|_| {}));
    }
}

#[track_caller]
fn passes(seed: u64) {
    let verdict = run(&Options::draw(seed), &|_| {});
    assert!(matches!(verdict, Verdict::Passed(_)), "seed {seed}: {verdict:?}");
}

#[test]
fn a_double_publish_whose_first_start_could_not_be_recorded() {
    passes(250);
}

#[test]
fn a_task_taken_back_from_a_worker_that_was_given_up_keeps_its_attempt() {
    passes(7871);
}

#[test]
fn a_queued_task_is_not_begun_by_a_worker_that_nobody_hears() {
    passes(8664);
    passes(9226);
    passes(11134);
}

#[test]
fn a_block_deleted_before_it_was_made_is_not_made() {
    passes(10661);
}

#[test]
fn a_hand_over_with_old_deliveries_wakes_for_nothing() {
    passes(119_156);
}

#[test]
fn an_agent_that_stands_by_ends_when_it_is_told_to() {
    passes(3);
}

#[test]
fn a_task_whose_start_is_recorded_is_not_sent_after_the_queue_is_lost() {
    passes(2110);
}

#[test]
fn who_hands_over_deletes_no_blocks() {
    passes(3953);
}

#[test]
fn what_a_frozen_agent_has_in_hand_may_be_a_second_result() {
    passes(8329);
}
