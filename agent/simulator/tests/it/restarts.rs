//! The ways in which a new life may find out what the one before left behind, each made to happen.

use std::time::Duration;

use waypost_engine::Guarantee;
use waypost_simulator::{FAULTS, Fault, Options, Report, Verdict, run};

/// A world in which only the agent dies, often, while tasks run.
fn restarts(seed: u64, consumer_delay: Duration, redial_delay: Duration) -> Report {
    let mut options = Options::draw(seed);
    for (fault, _, _) in FAULTS {
        options.without(fault);
    }
    options.odds.push((Fault::Kill, 8));
    options.tasks = 60;
    options.trouble = Duration::from_secs(200);
    options.submitted_within = Duration::from_secs(100);
    options.longest = Duration::from_secs(30);
    options.settings.reconnect_grace = Duration::from_secs(60);
    options.settings.guarantee = Guarantee::AtLeastOnce;
    options.settings.max_retries_on_system_failure = 0;
    options.consumer_delay = consumer_delay;
    options.redial_delay = redial_delay;
    match run(&options, &|_| {}) {
        Verdict::Passed(report) => report,
        failure => panic!("{options}: {failure:?}"),
    }
}

/// Sums over seeds: how often a mark was seen. No task is ever run twice, and each has its own result.
fn seen(mark: &str, consumer_delay: Duration, redial_delay: Duration) -> u64 {
    let mut sum = 0;
    for seed in 1..=40 {
        let report = restarts(seed, consumer_delay, redial_delay);
        assert_eq!(report.excused, 0, "seed {seed}");
        assert_eq!(report.marks.get("task_run_twice"), None, "seed {seed}");
        assert_eq!(report.marks.get("task_failed"), None, "seed {seed}");
        sum += report.marks.get(mark).copied().unwrap_or(0);
    }
    sum
}

#[test]
fn redelivery_before_redial_runs_nothing_twice() {
    assert!(
        seen(
            "redelivery before redial",
            Duration::from_millis(10),
            Duration::from_secs(20)
        ) > 50
    );
}

#[test]
fn redial_before_redelivery_runs_nothing_twice() {
    assert!(
        seen(
            "redial before redelivery",
            Duration::from_secs(20),
            Duration::from_millis(50)
        ) > 50
    );
}

#[test]
fn redial_without_redelivery_publishes_what_is_finished() {
    // The consumer is away for longer than any task takes.
    assert!(
        seen(
            "settled_task_redelivered",
            Duration::from_secs(300),
            Duration::from_millis(50)
        ) > 50
    );
}

#[test]
fn a_hello_with_a_result_whose_task_was_acknowledged_in_an_earlier_life_runs_nothing_twice() {
    let mark = "hello with a result whose task is acknowledged";
    assert!(seen(mark, Duration::from_millis(10), Duration::from_millis(50)) > 0);
}
