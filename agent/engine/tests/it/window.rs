//! The prefetch window, the bound on bytes, the broker's consumer timeout, the queue's depth.

use bytes::Bytes;
use waypost_engine::{DeadlineReason, Input, Settings};

use crate::recorder::{Recorder, block, settings};

const MIB: usize = 1024 * 1024;

#[test]
fn the_window_opens_once_tasks_are_seen_to_be_small() {
    let mut it = Recorder::started(settings());
    for number in 1..=16 {
        it.deliver(number);
    }
    it.expect(["prefetch 1000"]);
}

#[test]
fn the_window_follows_the_mean_size() {
    let mut it = Recorder::started(Settings {
        held_bytes: 64 * MIB as u64,
        ..settings()
    });
    it.body = Bytes::from(vec![0; 2 * MIB]);
    for number in 1..=16 {
        it.deliver(number);
    }
    // 48 MiB hold 24 of them; 8 more fit beside those that are here.
    it.expect(["prefetch 8", "ask depth"]);
}

#[test]
fn over_the_bound_the_window_is_one_and_the_newest_unstarted_go_back() {
    let mut it = Recorder::started(Settings {
        held_bytes: 10 * MIB as u64,
        ..settings()
    });
    it.body = Bytes::from(vec![0; MIB]);
    for number in 1..=10 {
        it.deliver(number);
    }
    it.expect([]);
    it.deliver(11);
    it.expect(["prefetch 1", "give back 11", "give back 10", "ask depth"]);
    assert_eq!(it.status().held_bytes, 9 * MIB as u64);
    it.give(Input::QueueDepth { ready: Some(2) });
    // What was under way comes all the same; and when there is room again, the window opens.
    it.deliver(12);
    it.worker(1, block(0), 16);
    let runs: Vec<String> = (1..=9)
        .chain([12])
        .map(|number| format!("run {number} on w1"))
        .collect();
    it.expect::<10>(std::array::from_fn(|index| runs[index].as_str()));
    // Nine of their bodies are needed no more; what is left leaves room for more.
    let mut windows = Vec::new();
    for number in 1..=9 {
        it.begin(1, number);
        windows.extend(it.windows());
    }
    assert_eq!(windows, [3, 7, 15]);
}

#[test]
fn a_share_that_shrinks_gives_the_newest_back_and_one_that_grows_opens_the_window_again() {
    let mut it = Recorder::started(Settings {
        held_bytes: 20 * MIB as u64,
        ..settings()
    });
    it.body = Bytes::from(vec![0; MIB]);
    for number in 1..=8 {
        it.deliver(number);
    }
    it.expect([]);
    it.give(Input::HeldBytesAllowed { bytes: 4 * MIB as u64 });
    it.expect([
        "prefetch 1",
        "give back 8",
        "give back 7",
        "give back 6",
        "give back 5",
        "give back 4",
        "ask depth",
    ]);
    assert_eq!(it.status().held_bytes, 3 * MIB as u64);
    it.give(Input::HeldBytesAllowed { bytes: 20 * MIB as u64 });
    assert_eq!(it.windows(), [12], "three quarters of the bound, less what is held");
}

#[test]
fn a_running_task_that_may_not_be_tried_again_holds_no_bytes() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    assert_eq!(it.status().held_bytes, 4);
    it.begin(1, 1);
    assert_eq!(it.status().held_bytes, 0);
}

#[test]
fn the_credit_for_results_shrinks_with_what_is_held() {
    let mut it = Recorder::started(Settings {
        held_bytes: 4 * MIB as u64,
        ..settings()
    });
    it.give(Input::WorkerHello {
        worker: waypost_engine::WorkerId(1),
        block: block(0),
        slots: 8,
        held: vec![],
    });
    it.expect(["result credit 1048576 for w1"]);
    it.credit(1, 8);
    for number in 1..=3 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1"]);
    let large: &'static str = String::leak("x".repeat(MIB + 1));
    it.finish_with(1, 1, large);
    let published = format!("publish 1: {large}");
    it.expect([published.as_str()]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "result credit 1048577 for w1", "ack 1"]);
}

#[test]
fn a_delivery_is_refreshed_before_half_the_consumer_timeout_while_its_task_goes_on() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 4);
    for number in 1..=4 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1", "run 4 on w1"]);
    for number in 1..=4 {
        it.begin(1, number);
    }
    it.seconds(674);
    it.expect([]);
    it.seconds(2);
    it.expect(["refresh 1"]);
    it.redeliver(1);
    it.expect([]);
    it.seconds(224);
    it.expect(["refresh 2", "refresh 3", "refresh 4"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 5"]);
}

#[test]
fn what_waits_for_a_slot_is_given_back_instead_of_refreshed() {
    let mut it = Recorder::started(settings());
    it.deliver(1);
    it.seconds(900);
    it.expect(["give back 1"]);
    it.redeliver(1);
    assert_eq!(it.status().tasks_waiting, 1);
}

#[test]
fn a_consumer_timeout_that_the_broker_named_is_kept() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.give(Input::ConsumerTimeout {
        timeout: std::time::Duration::from_secs(80),
    });
    assert_eq!(it.deadline.map(|(_, reason)| reason), Some(DeadlineReason::Refresh));
    it.seconds(40);
    it.expect(["refresh 1"]);
}

#[test]
fn a_queue_that_counts_deliveries_has_old_tasks_journalled_and_acknowledged() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver_as(1, true, Some(1));
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.seconds(900);
    it.expect(["journal accepted 1"]);
    it.journalled();
    it.expect(["ack 1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1"]);
}

#[test]
fn a_waiting_task_that_could_not_be_journalled_goes_back_to_a_queue_that_counts() {
    let mut it = Recorder::started(settings());
    it.deliver_as(1, true, Some(1));
    it.seconds(900);
    it.expect(["journal accepted 1"]);
    it.journal_fails();
    it.expect(["give back 1"]);
}

#[test]
fn the_depth_is_asked_when_the_window_is_full_and_at_most_once_a_second() {
    let mut it = Recorder::started(settings());
    it.give(Input::ConsumerTimeout {
        timeout: std::time::Duration::from_secs(1800),
    });
    for number in 1..=31 {
        it.deliver(number);
    }
    it.expect(["prefetch 1000"]);
    let mut it = Recorder::started(Settings {
        prefetch: waypost_engine::Prefetch { initial: 4, max: 4 },
        ..settings()
    });
    for number in 1..=4 {
        it.deliver(number);
    }
    it.expect(["ask depth"]);
    it.give(Input::QueueDepth { ready: Some(9) });
    assert_eq!(it.status().queue_depth, 9);
    it.expect([]);
    it.seconds(1);
    it.expect(["ask depth"]);
    it.give(Input::QueueDepth { ready: None });
    it.seconds(10);
    assert_eq!(it.status().queue_depth, 0);
}

#[test]
fn over_the_bound_nothing_is_acknowledged_on_accept() {
    let acknowledge = waypost_engine::Acknowledge::OnAccept;
    let mut it = Recorder::started(Settings {
        held_bytes: 4 * MIB as u64,
        acknowledge,
        ..settings()
    });
    it.body = Bytes::from(vec![0; MIB]);
    for number in 1..=4 {
        it.deliver(number);
    }
    it.expect([
        "journal accepted 1",
        "journal accepted 2",
        "journal accepted 3",
        "journal accepted 4",
    ]);
    it.journalled();
    it.expect(["ack through 4"]);
    it.deliver(5);
    it.expect(["journal accepted 5", "prefetch 1", "give back 5"]);
    it.deliver(6);
    it.journalled();
    it.expect(["ask depth"]);
    it.worker(1, block(0), 3);
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1"]);
    it.begin(1, 1);
    it.begin(1, 2);
    it.begin_any(1, 3);
    it.expect(["journal start 0 of 3 in 2-0", "journal accepted 6", "prefetch 4"]);
    it.journalled();
    it.expect(["ack 6"]);
}
