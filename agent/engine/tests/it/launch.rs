//! Blocks that do not come up, blocks that the platform takes away, and what the users of the waiting tasks are told.

use std::time::Duration;

use waypost_engine::{BlockEndKind, Event, ExecutorExit, OnUnschedulable, Scaling, Settings, WaitingCause};

use crate::recorder::{Recorder, block, old_block, settings};

const NO_ROOM: &str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu";
const NO_IMAGE: &str = "ErrImagePull: manifest unknown";

fn up_to(max_blocks: u32) -> Settings {
    with(Scaling {
        max_blocks,
        ..Scaling::default()
    })
}

fn with(scaling: Scaling) -> Settings {
    let init_blocks = 0;
    Settings {
        scaling: Scaling { init_blocks, ..scaling },
        // Longer than anything here: the broker brings no delivery anew.
        consumer_timeout: Duration::from_secs(1 << 32),
        ..settings()
    }
}

/// One task waits for one block, which was asked for.
fn asked(settings: Settings) -> Recorder {
    let mut it = Recorder::started(settings);
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it
}

#[test]
fn a_task_for_which_there_is_no_node_is_told_the_schedulers_words_after_600_s() {
    let mut it = asked(up_to(1));
    it.block_waits(block(0), WaitingCause::Scheduling, NO_ROOM);
    assert_eq!(
        it.count(|event| matches!(event, Event::BlockWaiting { .. })),
        1,
        "said at once"
    );
    assert_eq!(it.status().blocks_waiting, 1);
    it.seconds(599);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    assert!(it.status().circuit_open);
    it.expect_failure(1, &["Unschedulable", "no node took it within 600 s", NO_ROOM]);
    it.seconds(3600);
    it.expect([]);
}

#[test]
fn who_waits_for_a_node_waits_as_long_as_it_takes_and_runs_when_one_comes() {
    let mut it = asked(with(Scaling {
        on_unschedulable: OnUnschedulable::Wait,
        ..Scaling::default()
    }));
    it.block_waits(block(0), WaitingCause::Scheduling, NO_ROOM);
    it.seconds(30 * 24 * 3600);
    it.expect([]);
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
}

#[test]
fn a_node_that_comes_in_time_begins_the_time_to_run_anew() {
    let mut it = asked(up_to(1));
    it.block_waits(block(0), WaitingCause::Scheduling, NO_ROOM);
    it.seconds(590);
    it.block_waits(block(0), WaitingCause::Other, "ContainerCreating");
    it.seconds(590);
    it.block_runs(block(0));
    it.seconds(290);
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
}

#[test]
fn while_tasks_run_elsewhere_a_block_may_wait_for_its_node() {
    let mut it = asked(up_to(2));
    it.deliver(2);
    it.expect(["start block 2-1"]);
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.block_waits(block(1), WaitingCause::Scheduling, NO_ROOM);
    it.seconds(1000);
    it.expect([]);
}

#[test]
fn an_image_that_cannot_be_pulled_has_30_s() {
    let mut it = asked(up_to(1));
    it.block_waits(block(0), WaitingCause::Image, NO_IMAGE);
    it.seconds(20);
    it.block_waits(block(0), WaitingCause::Image, "ImagePullBackOff");
    it.seconds(9);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect_failure(1, &["ImageNotPulled", "ImagePullBackOff"]);
}

#[test]
fn what_can_never_work_is_told_at_once() {
    let mut it = asked(up_to(1));
    it.block_waits(block(0), WaitingCause::Never, "InvalidImageName: Python:3.12:latest");
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect_failure(1, &["Misconfigured", "InvalidImageName"]);
}

#[test]
fn what_the_platform_refuses_for_good_is_told_at_once() {
    let mut it = asked(up_to(1));
    it.start_fails(block(0), BlockEndKind::Rejected);
    it.expect_failure(1, &["Rejected", "so it is"]);
}

#[test]
fn a_quota_that_is_used_up_is_tried_again_for_as_long_as_a_node_is_waited_for() {
    let mut it = asked(up_to(1));
    for number in 0..9 {
        it.start_fails(block(number), BlockEndKind::CannotStart);
        it.expect([]);
        it.seconds(60);
        it.expect([&format!("start block 2-{}", number + 1)]);
    }
    it.seconds(60);
    it.start_fails(block(9), BlockEndKind::CannotStart);
    it.expect_failure(1, &["CannotStart", "failures: 10"]);
}

#[test]
fn a_worker_that_never_dials_is_told_with_the_last_lines_of_its_block() {
    let mut it = asked(up_to(1));
    it.block_runs(block(0));
    it.seconds(299);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 2-0"]);
    it.deleted(block(0), true);
    it.seconds(60);
    it.expect([]);
    it.block_ends_saying(block(0), BlockEndKind::Deleted, "pip: no matching distribution");
    it.expect_failure(1, &["NotRegistered", "within 300 s", "pip: no matching distribution"]);
}

#[test]
fn the_last_words_of_a_block_are_not_waited_for_for_ever() {
    let mut it = asked(up_to(1));
    it.block_runs(block(0));
    it.seconds(300);
    it.expect(["delete block 2-0"]);
    it.deleted(block(0), true);
    it.seconds(90);
    it.expect(["journal result of 1", "delete block 2-0"]);
}

#[test]
fn a_circuit_that_is_open_tries_one_block_and_closes_when_it_comes_up() {
    let mut it = asked(up_to(5));
    for number in 2..=5 {
        it.deliver(number);
    }
    it.expect([
        "start block 2-1",
        "start block 2-2",
        "start block 2-3",
        "start block 2-4",
    ]);
    for number in 0..4 {
        it.block_ends(block(number), BlockEndKind::Crashed);
    }
    it.expect([]);
    it.block_ends(block(4), BlockEndKind::Crashed);
    let failed = [1, 2, 3, 4, 5].map(|number| format!("journal result of {number}"));
    it.expect(failed.each_ref().map(String::as_str));
    it.journalled();
    it.forget_outputs();
    assert_eq!(
        it.count(|event| matches!(event, Event::CircuitOpened { tasks: 5, .. })),
        1
    );
    for number in 6..=8 {
        it.deliver(number);
    }
    it.seconds(1);
    it.expect(["start block 2-5"]);
    it.worker(1, block(5), 1);
    it.expect(["start block 2-6", "run 6 on w1"]);
    assert_eq!(it.count(|event| matches!(event, Event::CircuitClosed)), 1);
    it.finish(1, 6);
    it.expect(["publish 6: result"]);
    assert_eq!(it.status().start_failures, 0);
}

#[test]
fn tasks_that_end_elsewhere_do_not_shorten_the_pause_after_a_failed_start() {
    let mut it = asked(up_to(2));
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.deliver(2);
    it.deliver(3);
    it.expect(["start block 2-1"]);
    it.start_fails(block(1), BlockEndKind::CannotStart);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.credit(1, 1);
    it.expect(["run 2 on w1"]);
    it.deliver(4);
    it.seconds(1);
    it.expect(["start block 2-2"]);
}

#[test]
fn blocks_that_fail_all_at_once_pause_the_next_start_as_one_does() {
    let mut it = asked(up_to(3));
    it.deliver(2);
    it.deliver(3);
    it.expect(["start block 2-1", "start block 2-2"]);
    it.seconds(3);
    for number in 0..3 {
        it.block_ends(block(number), BlockEndKind::Crashed);
    }
    it.wait(Duration::from_millis(1000));
    it.expect(["start block 2-3"]);
}

#[test]
fn a_block_that_waits_for_a_node_is_withdrawn_when_it_is_not_wanted() {
    let mut it = asked(up_to(1));
    it.block_waits(block(0), WaitingCause::Scheduling, NO_ROOM);
    it.give(waypost_engine::Input::Cancel {
        task: crate::recorder::task(1),
    });
    it.expect_failure(1, &["Cancelled"]);
    it.seconds(4);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    assert_eq!(it.status().start_failures, 0, "that is no failure to start");
}

#[test]
fn a_block_that_the_platform_ends_gets_no_more_tasks_and_is_replaced_at_once() {
    let mut it = asked(up_to(2));
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.block_is_ending(block(0), BlockEndKind::Drained);
    it.expect(["start block 2-1"]);
    it.deliver(2);
    it.credit(1, 1);
    it.expect([]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
}

#[test]
fn a_task_that_a_drained_node_cut_off_is_told_why_its_worker_had_to_end() {
    let mut it = asked(up_to(1));
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.block_is_ending(block(0), BlockEndKind::Drained);
    it.die_of(1, 1, ExecutorExit::GraceOver);
    it.expect_failure(1, &["BlockEnded", "kind: Drained", "the node is emptied", "last words"]);
}

#[test]
fn a_task_on_a_drained_node_is_tried_again_if_that_is_allowed() {
    let mut it = asked(Settings {
        max_retries_on_system_failure: 1,
        ..up_to(2)
    });
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.block_is_ending(block(0), BlockEndKind::Drained);
    it.expect(["start block 2-1"]);
    it.die_of(1, 1, ExecutorExit::GraceOver);
    it.expect(["forget 1 on w1"]);
    it.worker(2, block(1), 1);
    it.expect(["run 1 on w2 again (1)"]);
}

#[test]
fn a_silent_worker_on_a_lost_node_is_given_up_at_once_and_does_not_hold_a_place() {
    let mut it = asked(up_to(1));
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.lose_worker(1);
    it.expect([]);
    it.block_is_ending(block(0), BlockEndKind::NodeLost);
    it.expect(["start block 2-1"]);
    it.worker(2, block(1), 1);
    it.expect(["run 1 on w2"]);
}

#[test]
fn a_task_on_a_lost_node_is_told_of_the_node_and_not_of_the_silence() {
    let mut it = asked(up_to(1));
    it.worker(1, block(0), 1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.block_is_ending(block(0), BlockEndKind::NodeLost);
    it.expect(["start block 2-1"]);
    it.lose_worker(1);
    it.expect_failure(1, &["BlockEnded", "kind: NodeLost"]);
}

#[test]
fn a_found_block_that_runs_is_adopted_when_it_says_hello_and_deleted_if_it_never_does() {
    let mut it = Recorder::started(up_to(2));
    it.block_runs(old_block(0));
    it.block_runs(old_block(1));
    it.worker(1, old_block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.seconds(299);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 1-1"]);
}

#[test]
fn a_block_that_says_hello_before_its_deletion_could_be_asked_for_is_kept() {
    let mut it = asked(up_to(1));
    it.block_runs(block(0));
    it.lose_consumer();
    it.seconds(600);
    it.hello(1, block(0), 1, &[(1, waypost_engine::HeldState::Running)]);
    it.consume();
    it.expect([]);
    assert_eq!(it.status().blocks_up, 1);
}

#[test]
fn while_somebody_else_may_hold_the_queue_no_block_is_given_up_withdrawn_or_started() {
    let mut it = asked(up_to(3));
    it.block_waits(block(0), WaitingCause::Image, NO_IMAGE);
    it.lose_consumer();
    it.seconds(3600);
    it.expect([]);
    it.consume();
    it.expect(["delete block 2-0"]);
}
