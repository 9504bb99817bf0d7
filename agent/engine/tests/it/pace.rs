//! A block is not started for tasks that the slots in hand take before it could come up.

use std::time::Duration;

use waypost_engine::{Event, PublishOutcome, Scaling, Settings};

use crate::recorder::{Recorder, block, settings};

/// A block of two slots that took 2 s to come up and ends two tasks a second. The ninth runs, so that one slot is free.
fn flowing() -> Recorder {
    let mut it = Recorder::started(Settings {
        slots_per_block: 2,
        scaling: Scaling {
            init_blocks: 0,
            max_blocks: 5,
            ..Scaling::default()
        },
        ..settings()
    });
    it.deliver(1);
    it.forget_outputs();
    it.seconds(2);
    it.worker(1, block(0), 2);
    for number in 1..=8 {
        it.begin_any(1, number);
        it.wait(Duration::from_millis(500));
        it.finish(1, number);
        it.outcome(number, PublishOutcome::Confirmed);
        it.journalled();
        it.credit(1, 1);
        it.deliver(number + 1);
    }
    it.begin_any(1, 9);
    it.forget_outputs();
    assert_eq!(starts(&it), 1);
    it
}

fn starts(it: &Recorder) -> usize {
    it.count(|event| matches!(event, Event::BlockStarting { .. }))
}

#[test]
fn a_task_that_finds_no_slot_waits_for_the_next_that_is_free() {
    let mut it = flowing();
    it.deliver(10);
    it.deliver(11);
    it.expect(["run 10 on w1"]);
    it.begin_any(1, 10);
    it.wait(Duration::from_millis(500));
    it.finish(1, 9);
    it.credit(1, 1);
    it.outcome(9, PublishOutcome::Confirmed);
    it.journalled();
    it.seconds(60);
    it.forget_outputs();
    assert_eq!(
        starts(&it),
        1,
        "the shortage was over before a block could have come up"
    );
}

#[test]
fn a_block_that_was_put_off_is_started_if_nothing_ends_for_as_long_as_it_would_have_taken() {
    let mut it = flowing();
    it.deliver(10);
    it.deliver(11);
    it.expect(["run 10 on w1"]);
    it.wait(Duration::from_millis(400));
    it.expect([]);
    it.wait(Duration::from_millis(1600));
    it.expect(["start block 2-1"]);
}

#[test]
fn what_the_slots_in_hand_can_not_take_is_not_put_off() {
    let mut it = flowing();
    for number in 10..=30 {
        it.deliver(number);
    }
    it.forget_outputs();
    assert_eq!(starts(&it), 5, "as many as there may be");
}

#[test]
fn nothing_is_put_off_while_no_task_ends() {
    let mut it = flowing();
    it.seconds(10);
    it.deliver(10);
    it.deliver(11);
    it.expect(["run 10 on w1", "start block 2-1"]);
}
