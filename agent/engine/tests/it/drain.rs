//! The ends of a life.

use waypost_engine::{BlockEndKind, Drain, Event, Input, RefusalReason};

use crate::recorder::{Recorder, block, settings};

#[test]
fn a_hand_over_gives_back_what_has_not_begun_and_flushes_results() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.credit(1, 2);
    for number in 1..=4 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1"]);
    it.begin(1, 1);
    it.begin(1, 2);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.drain(Drain::HandOver);
    it.expect(["stop consuming", "give back 4", "recall 3 from w1"]);
    it.refuse(1, 3, RefusalReason::Recalled);
    it.expect(["give back 3"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1", "drained"]);
}

#[test]
fn a_hand_over_with_nothing_in_hand_is_done_at_once() {
    let mut it = Recorder::started(settings());
    it.drain(Drain::HandOver);
    it.expect(["stop consuming", "drained"]);
}

#[test]
fn a_stop_lets_running_tasks_end_and_deletes_the_blocks() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.drain(Drain::Stop);
    it.expect(["stop consuming", "drain w1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1", "delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect(["drained"]);
}

#[test]
fn a_stop_that_waited_long_enough_tells_the_users_of_running_tasks() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.drain(Drain::Stop);
    it.expect(["stop consuming", "drain w1"]);
    it.seconds(30);
    it.expect(["journal result of 1"]);
    it.journalled();
    it.expect(["publish 1: EndpointStopped after 1"]);
    it.confirm(1);
    it.expect(["ack 1", "delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect(["drained"]);
}

#[test]
fn a_stop_that_waits_for_no_broker_keeps_results_in_the_journal_for_the_next_life() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(1);
    it.deliver(2);
    it.expect(["run 1 on w1", "run 2 on w1"]);
    it.begin(1, 1);
    it.begin(1, 2);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    // The broker takes nothing more, and has taken the first perhaps.
    it.lose_consumer();
    it.give(Input::PublisherLost);
    it.drain(Drain::Stop);
    it.expect(["stop consuming", "drain w1"]);
    it.finish(1, 2);
    it.give(Input::KeepResults);
    it.expect(["journal result of 1", "journal result of 2"]);
    it.journalled();
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect(["drained"]);
    assert_eq!(it.count(|event| matches!(event, Event::ResultKept { .. })), 2);

    let mut next = Recorder::new(settings(), it.records.clone());
    next.start(vec![]);
    next.expect(["publish 1: result", "publish 2: result"]);
    next.redeliver(1);
    next.redeliver(2);
    next.expect([]);
    next.confirm(1);
    next.expect(["ack 1"]);
    next.confirm(2);
    next.expect(["ack 2"]);
}

#[test]
fn a_result_that_can_not_be_kept_is_held_for_the_broker() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.give(Input::PublisherLost);
    it.finish(1, 1);
    it.drain(Drain::Stop);
    it.expect(["stop consuming", "drain w1"]);
    it.give(Input::KeepResults);
    it.expect(["journal result of 1"]);
    it.journal_fails();
    it.expect([]);
    it.give(Input::PublisherStarted);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1", "delete block 2-0"]);
}

#[test]
fn results_are_kept_only_by_who_stops() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.give(Input::KeepResults);
    it.drain(Drain::HandOver);
    it.give(Input::KeepResults);
    it.expect(["stop consuming"]);
}

#[test]
fn who_is_fenced_publishes_only_the_results_in_hand() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    for number in 1..=3 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1"]);
    it.begin(1, 1);
    it.finish(1, 2);
    it.expect(["publish 2: result"]);
    it.lose_consumer();
    it.give(Input::Fenced);
    it.expect(["close w1"]);
    it.confirm(2);
    it.expect(["drained"]);
    it.give(Input::WorkerHello {
        worker: waypost_engine::WorkerId(2),
        block: block(0),
        slots: 1,
        held: vec![],
    });
    it.expect(["close w2"]);
}

#[test]
fn a_life_that_ends_refreshes_nothing_and_waits_for_nothing() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(1);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.seconds(660);
    it.drain(Drain::HandOver);
    it.expect(["stop consuming", "drained"]);
    it.seconds(60);
    it.expect([]);
    assert_eq!(it.deadline, None);
}
