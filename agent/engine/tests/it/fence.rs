//! What an engine does that does not hold the queue any more, while another agent may.

use waypost_engine::{Drain, Guarantee, Input, PublishOutcome, Scaling, Settings};

use crate::recorder::{Recorder, block, old_block, settings};

#[test]
fn who_hands_over_deletes_nothing_any_more() {
    let mut it = Recorder::started(Settings {
        scaling: Scaling {
            max_blocks: 1,
            ..settings().scaling
        },
        ..settings()
    });
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.drain(Drain::HandOver);
    it.expect(["stop consuming", "give back 1", "drained"]);
    // The time in which the block should have come up is over, and whoever holds the queue now decides what becomes of it.
    it.seconds(600);
    it.expect([]);
}

#[test]
fn a_task_whose_start_was_being_written_down_is_not_sent_once_the_queue_is_lost() {
    let mut it = Recorder::started(Settings {
        guarantee: Guarantee::AtMostOnce,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["journal start 0 of 7 in 2-0"]);
    it.lose_consumer();
    it.journalled();
    it.expect([]);
    it.consume();
    it.redeliver(7);
    it.expect(["journal start 0 of 7 in 2-0"]);
    it.journalled();
    it.expect(["run 7 on w1"]);
}

#[test]
fn who_stands_by_and_is_told_to_end_says_when_it_may() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.lose_consumer();
    it.give(Input::Fenced);
    it.expect(["close w1"]);
    it.drain(Drain::HandOver);
    it.expect(["stop consuming"]);
    it.confirm(1);
    it.expect(["drained"]);
    it.drain(Drain::Stop);
    it.expect(["stop consuming", "drained"]);
}

#[test]
fn what_became_of_a_publish_of_the_engine_before_is_not_taken_for_its_own() {
    let mut before = Recorder::started(Settings { epoch: 1, ..settings() });
    before.worker(1, old_block(0), 1);
    before.deliver(1);
    before.expect(["run 1 on w1"]);
    before.finish(1, 1);
    before.expect(["publish 1: result"]);
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(2);
    it.expect(["run 2 on w1"]);
    it.finish(1, 2);
    it.expect(["publish 2: result"]);
    it.give(Input::PublishOutcome {
        publish: before.publish_of(1),
        outcome: PublishOutcome::Confirmed,
    });
    it.expect([]);
    it.confirm(2);
    it.expect(["settled [2] to w1", "ack 1"]);
}
