//! Two agents that live at once, each way in which that comes about made to happen by itself.

use std::time::Duration;

use waypost_engine::Guarantee;
use waypost_simulator::{FAULTS, Fault, Marks, Options, Report, Verdict, run};

/// A world in which nothing goes wrong but this.
fn play(seed: u64, fault: Fault) -> Report {
    let mut options = Options::draw(seed);
    for (other, _, _) in FAULTS {
        options.without(other);
    }
    options.odds.push((fault, 4));
    options.tasks = 60;
    options.trouble = Duration::from_secs(400);
    options.submitted_within = Duration::from_secs(300);
    options.longest = Duration::from_secs(30);
    options.quorum = false;
    options.delivery_limit = None;
    options.redial_delay = options.redial_delay.min(Duration::from_secs(5));
    options.settings.acknowledge = waypost_engine::Acknowledge::AfterResult;
    options.settings.reconnect_grace = Duration::from_secs(60);
    options.settings.guarantee = Guarantee::AtLeastOnce;
    options.settings.max_retries_on_system_failure = 0;
    match run(&options, &|_| {}) {
        Verdict::Passed(report) => report,
        failure => panic!("{options}: {failure:?}"),
    }
}

/// What was seen in so many worlds.
fn seen(fault: Fault, check: impl Fn(u64, &Report)) -> Marks {
    let mut sum = Marks::new();
    for seed in 1..=60 {
        let report = play(seed, fault);
        check(seed, &report);
        for (name, count) in report.marks {
            *sum.entry(name).or_default() += count;
        }
    }
    sum
}

fn count(marks: &Marks, name: &str) -> u64 {
    marks.get(name).copied().unwrap_or(0)
}

#[test]
fn a_rollout_runs_nothing_twice_and_fails_nothing() {
    let marks = seen(Fault::Second, |seed, report| {
        assert_eq!(report.excused, 0, "seed {seed}");
        assert_eq!(report.marks.get("task_run_twice"), None, "seed {seed}");
        assert_eq!(report.marks.get("task_failed"), None, "seed {seed}");
    });
    for name in ["a second agent", "stands by", "begins again"] {
        assert!(count(&marks, name) > 50, "{name}: {marks:?}");
    }
}

#[test]
fn an_agent_that_was_cut_off_stands_by_when_it_returns() {
    let marks = seen(Fault::Cut, |_, _| {});
    assert!(count(&marks, "the queue goes to another agent") > 20, "{marks:?}");
    assert!(count(&marks, "stands by") > 20, "{marks:?}");
}

#[test]
fn an_agent_that_stood_still_is_replaced() {
    let marks = seen(Fault::Freeze, |_, _| {});
    assert!(count(&marks, "the queue goes to another agent") > 20, "{marks:?}");
    assert!(count(&marks, "stands by") > 20, "{marks:?}");
}
