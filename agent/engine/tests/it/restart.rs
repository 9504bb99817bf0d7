//! A new life: what the journal, the workers and the broker say of the one before.

use bytes::Bytes;
use waypost_engine::{AcceptedTask, BlockEndKind, Event, FunctionId, HeldState, Input, JournalRecord, Settings, Time};

use crate::recorder::{Recorder, old_block, settings, task};

fn at() -> Time {
    Time::from_micros(1_000_000_000_000_000)
}

fn started(number: u128, attempt: u32) -> JournalRecord {
    JournalRecord::Started {
        task: task(number),
        attempt,
        block: old_block(0),
        at: at(),
    }
}

fn settled(number: u128) -> JournalRecord {
    JournalRecord::Settled {
        task: task(number),
        at: at(),
    }
}

fn retries(max: u32) -> Settings {
    Settings {
        max_retries_on_system_failure: max,
        ..settings()
    }
}

#[test]
fn redelivered_tasks_wait_for_the_blocks_that_exist_and_others_go_at_once() {
    let mut it = Recorder::new(settings(), vec![]);
    it.start(vec![old_block(0), old_block(1)]);
    it.redeliver(1);
    it.redeliver(2);
    it.worker(1, old_block(0), 4);
    it.deliver(3);
    it.expect(["run 3 on w1"]);
    it.hello(2, old_block(1), 1, &[(2, HeldState::Running)]);
    it.expect(["run 1 on w1"]);
    it.finish(2, 2);
    it.expect(["publish 2: result"]);
}

#[test]
fn redial_before_redelivery_is_running_with_its_delivery_awaited() {
    let mut it = Recorder::new(settings(), vec![started(1, 0)]);
    it.start(vec![old_block(0)]);
    it.hello(1, old_block(0), 1, &[(1, HeldState::Running)]);
    it.redeliver(1);
    it.expect([]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1"]);
}

#[test]
fn a_finished_task_is_published_at_once_without_its_delivery() {
    let mut it = Recorder::new(settings(), vec![started(1, 0)]);
    it.start(vec![old_block(0)]);
    it.hello(1, old_block(0), 1, &[(1, HeldState::Finished)]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1"]);
    it.redeliver(1);
    it.expect(["ack 1"]);
}

#[test]
fn a_task_that_the_journal_says_is_settled_is_acknowledged_and_never_run() {
    let mut it = Recorder::new(settings(), vec![started(1, 0), settled(1)]);
    it.start(vec![]);
    it.redeliver(1);
    it.expect(["ack 1"]);
    it.hello(1, old_block(0), 1, &[(1, HeldState::Finished)]);
    it.expect(["settled [1] to w1"]);
}

#[test]
fn what_was_settled_is_known_however_long_the_process_was_away() {
    let long_ago = JournalRecord::Settled {
        task: task(1),
        at: Time::from_micros(0),
    };
    let mut it = Recorder::new(settings(), vec![long_ago]);
    it.start(vec![]);
    it.worker(1, old_block(0), 1);
    it.redeliver(1);
    it.expect(["ack 1"]);
}

#[test]
fn a_hello_settles_what_an_earlier_life_had_acknowledged() {
    let mut it = Recorder::new(settings(), vec![]);
    it.start(vec![old_block(0)]);
    it.redeliver(1);
    it.hello(1, old_block(0), 1, &[(1, HeldState::Settled), (2, HeldState::Settled)]);
    it.expect(["ack 1"]);
    it.redeliver(2);
    it.expect(["ack 2"]);
}

#[test]
fn a_started_task_whose_block_is_gone_is_one_failure_of_the_system() {
    let mut it = Recorder::new(settings(), vec![started(1, 0)]);
    it.start(vec![old_block(0)]);
    it.redeliver(1);
    it.expect([]);
    it.block_ends(old_block(0), BlockEndKind::NodeLost);
    it.expect(["journal result of 1"]);
    it.journalled();
    it.expect(["publish 1: Interrupted after 1"]);
}

#[test]
fn an_interrupted_task_is_tried_again_as_often_as_allowed_over_all_lives() {
    let mut it = Recorder::new(retries(2), vec![started(1, 1), started(2, 2)]);
    it.start(vec![]);
    it.worker(1, old_block(5), 2);
    it.redeliver(1);
    it.expect(["run 1 on w1 again (2)"]);
    it.redeliver(2);
    it.expect(["journal result of 2"]);
}

#[test]
fn without_a_journal_a_redelivered_task_is_run_once_more() {
    let mut it = Recorder::new(settings(), vec![]);
    it.start(vec![]);
    it.worker(1, old_block(0), 1);
    it.redeliver(1);
    it.expect(["run 1 on w1"]);
}

#[test]
fn blocks_that_do_not_answer_are_waited_for_no_longer_than_the_grace() {
    let mut it = Recorder::new(settings(), vec![]);
    it.start(vec![old_block(0), old_block(1)]);
    it.redeliver(1);
    it.worker(1, old_block(1), 1);
    it.seconds(59);
    it.expect([]);
    it.seconds(1);
    it.expect(["run 1 on w1"]);
    assert_eq!(
        it.count(|event| matches!(event, Event::RestartSettled { missing: 1, tasks: 1 })),
        1
    );
}

#[test]
fn the_grace_for_listed_blocks_begins_when_the_queue_is_held_for_until_then_they_may_be_anothers() {
    let mut it = Recorder::new(settings(), vec![]);
    it.give(Input::BlocksListed {
        blocks: vec![old_block(0), old_block(1)],
    });
    // Nobody has answered, neither the broker nor the workers.
    it.seconds(3600);
    it.consume();
    it.give(Input::PublisherStarted);
    it.redeliver(1);
    it.worker(1, old_block(1), 1);
    it.seconds(30);
    // The queue is lost and held again, and what had begun goes on.
    it.lose_consumer();
    it.consume();
    it.redeliver(1);
    it.seconds(29);
    it.expect([]);
    it.seconds(1);
    it.expect(["run 1 on w1"]);
}

#[test]
fn a_failure_that_an_earlier_life_decided_is_the_one_that_is_published() {
    let failed = JournalRecord::Result {
        task: task(1),
        body: Bytes::from_static(b"given up"),
        at: at(),
    };
    let mut it = Recorder::new(settings(), vec![started(1, 0), failed]);
    it.start(vec![old_block(0)]);
    it.expect(["publish 1: given up"]);
    it.hello(1, old_block(0), 1, &[(1, HeldState::Finished)]);
    it.expect(["forget 1 on w1"]);
    it.redeliver(1);
    it.confirm(1);
    it.expect(["ack 1"]);
}

fn accepted(number: u128) -> JournalRecord {
    let body = Some(Bytes::from_static(b"body"));
    let function = FunctionId(uuid::Uuid::nil());
    let accepted = AcceptedTask {
        task: task(number),
        function,
        resource_specification: None,
        result_serializers: None,
        body,
    };
    JournalRecord::Accepted {
        task: accepted,
        at: at(),
    }
}

#[test]
fn a_task_that_was_acknowledged_early_is_run_from_the_journal() {
    let mut it = Recorder::new(
        settings(),
        vec![accepted(1), accepted(2), accepted(3), started(2, 0), settled(3)],
    );
    it.start(vec![]);
    it.expect(["journal result of 2"]);
    it.journalled();
    it.expect(["publish 2: Interrupted after 1"]);
    it.worker(1, old_block(5), 1);
    it.expect(["run 1 on w1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1"]);
}

#[test]
fn a_double_publish_that_comes_while_a_worker_may_run_the_task_waits_as_well() {
    let mut it = Recorder::new(settings(), vec![started(1, 0)]);
    it.start(vec![old_block(0)]);
    it.worker(1, old_block(7), 1);
    it.deliver(1);
    it.expect([]);
    it.hello(2, old_block(0), 1, &[(1, HeldState::Running)]);
    it.expect([]);
}

#[test]
fn an_attempt_before_the_one_on_record_is_not_taken_for_the_tasks_result() {
    let mut it = Recorder::new(retries(3), vec![started(1, 1)]);
    it.start(vec![old_block(0), old_block(1)]);
    it.redeliver(1);
    it.hello(1, old_block(1), 1, &[(1, HeldState::Finished)]);
    it.expect(["forget 1 on w1"]);
}
