//! A task's whole life, and what may go wrong with its worker, its result and its delivery.

use waypost_engine::{
    Acknowledge, BlockEndKind, Event, Guarantee, HeldState, Input, PublishOutcome, RefusalReason, Settings,
};

use crate::recorder::{Recorder, block, settings, task};

fn retries(max: u32) -> Settings {
    Settings {
        max_retries_on_system_failure: max,
        ..settings()
    }
}

#[test]
fn a_task_is_acknowledged_only_after_its_result_is_confirmed_and_remembered() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.outcome(7, PublishOutcome::Confirmed);
    it.expect(["journal settled 7"]);
    it.journalled();
    it.expect(["settled [7] to w1", "ack 1"]);
    assert_eq!(it.status().outstanding(), 0);
}

#[test]
fn tasks_wait_for_credit_and_go_in_the_order_in_which_they_came() {
    let mut it = Recorder::started(settings());
    for number in 1..=3 {
        it.deliver(number);
    }
    it.worker(1, block(0), 2);
    it.expect(["run 1 on w1", "run 2 on w1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.credit(1, 1);
    it.expect(["run 3 on w1"]);
}

#[test]
fn idle_slots_of_the_fullest_block_are_filled_first_and_queues_evenly() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.worker(2, block(1), 2);
    it.credit(1, 2);
    it.credit(2, 2);
    for number in 1..=8 {
        it.deliver(number);
    }
    it.expect([
        "run 1 on w1",
        "run 2 on w1",
        "run 3 on w2",
        "run 4 on w2",
        "run 5 on w1",
        "run 6 on w2",
        "run 7 on w1",
        "run 8 on w2",
    ]);
}

#[test]
fn a_queued_task_is_recalled_when_a_slot_is_idle_elsewhere() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.credit(1, 1);
    it.deliver(1);
    it.deliver(2);
    it.expect(["run 1 on w1", "run 2 on w1"]);
    it.begin(1, 1);
    it.worker(2, block(1), 1);
    it.expect(["recall 2 from w1"]);
    it.refuse(1, 2, RefusalReason::Recalled);
    it.expect(["run 2 on w2"]);
}

#[test]
fn a_recalled_task_that_has_begun_stays_where_it_is() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.credit(1, 1);
    it.deliver(1);
    it.deliver(2);
    it.expect(["run 1 on w1", "run 2 on w1"]);
    it.begin(1, 1);
    it.worker(2, block(1), 1);
    it.expect(["recall 2 from w1"]);
    it.begin(1, 2);
    it.finish(1, 2);
    it.expect(["publish 2: result"]);
}

#[test]
fn a_redelivered_task_takes_the_new_tag_and_is_not_run_again() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.lose_consumer();
    it.consume();
    it.deliver(8);
    it.redeliver(7);
    it.expect([]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack 2"]);
}

#[test]
fn a_task_that_the_service_published_twice_is_run_once_and_both_deliveries_are_acknowledged() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack through 2"]);
    it.deliver(7);
    it.expect(["ack 3"]);
}

#[test]
fn acknowledgements_of_a_lost_channel_are_never_sent() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.lose_consumer();
    it.confirm(7);
    it.expect(["settled [7] to w1"]);
    it.consume();
    it.redeliver(7);
    it.expect(["ack 1"]);
}

#[test]
fn what_was_not_given_to_a_worker_is_let_go_with_its_channel() {
    let mut it = Recorder::started(settings());
    it.deliver(7);
    it.lose_consumer();
    it.worker(1, block(0), 1);
    it.expect([]);
    it.consume();
    it.redeliver(7);
    it.expect(["run 7 on w1"]);
}

#[test]
fn one_acknowledgement_covers_what_was_journalled_at_once_but_never_an_open_delivery() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 4);
    for number in 1..=4 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1", "run 4 on w1"]);
    for number in [4, 1, 2] {
        it.finish(1, number);
        it.outcome(number, PublishOutcome::Confirmed);
    }
    it.expect([
        "publish 4: result",
        "journal settled 4",
        "publish 1: result",
        "journal settled 1",
        "publish 2: result",
        "journal settled 2",
    ]);
    it.journalled();
    it.expect(["settled [4, 1, 2] to w1", "ack through 2", "ack 4"]);
}

#[test]
fn a_returned_or_refused_result_is_kept_and_published_again_ever_later() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.outcome(7, PublishOutcome::Returned);
    it.expect([]);
    it.wait(std::time::Duration::from_millis(200));
    it.expect(["publish 7: result"]);
    it.outcome(7, PublishOutcome::Nacked);
    it.wait(std::time::Duration::from_millis(199));
    it.expect([]);
    it.wait(std::time::Duration::from_millis(201));
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack 1"]);
}

#[test]
fn a_result_whose_confirm_was_lost_is_published_again_as_soon_as_that_is_possible() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.give(Input::PublisherLost);
    it.expect([]);
    it.give(Input::PublisherStarted);
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack 1"]);
}

#[test]
fn without_a_journal_the_memory_of_the_process_has_to_do() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.finish(1, 7);
    it.outcome(7, PublishOutcome::Confirmed);
    it.expect(["run 7 on w1", "publish 7: result", "journal settled 7"]);
    it.journal_fails();
    it.expect(["settled [7] to w1", "ack 1"]);
    assert_eq!(
        it.count(|event| matches!(event, Event::JournalFailed { entries: 1 })),
        1
    );
}

#[test]
fn a_dead_executor_ends_its_task_with_the_cause() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.die(1, 7);
    it.expect(["journal result of 7"]);
    it.journalled();
    it.expect(["publish 7: ExecutorDied(ExecutorEnd { how: Process(Signal(11)), output: \"last words\" }) after 1"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack 1"]);
}

#[test]
fn a_dead_executors_task_is_tried_again_as_often_as_allowed() {
    let mut it = Recorder::started(retries(1));
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.die(1, 7);
    it.expect(["forget 7 on w1"]);
    it.credit(1, 1);
    it.expect(["run 7 on w1 again (1)"]);
    it.begin(1, 7);
    it.die(1, 7);
    it.expect(["journal result of 7"]);
}

#[test]
fn a_worker_that_redials_in_time_keeps_its_tasks() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.deliver(8);
    it.expect(["run 7 on w1", "run 8 on w1"]);
    it.begin(1, 7);
    it.lose_worker(1);
    it.seconds(59);
    it.hello(2, block(0), 2, &[(7, HeldState::Running), (8, HeldState::Finished)]);
    it.expect([]);
    it.finish(2, 8);
    it.finish(2, 7);
    it.expect(["publish 8: result", "publish 7: result"]);
}

#[test]
fn what_never_reached_a_worker_is_sent_again_when_it_redials() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.lose_worker(1);
    it.worker(2, block(0), 2);
    it.expect(["run 7 on w2"]);
}

#[test]
fn a_silent_workers_tasks_fail_if_begun_and_go_elsewhere_if_not() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.deliver(8);
    it.expect(["run 7 on w1", "run 8 on w1"]);
    it.begin(1, 7);
    it.lose_worker(1);
    it.worker(2, block(1), 2);
    it.seconds(60);
    it.expect(["journal result of 7", "run 8 on w2"]);
    it.journalled();
    it.expect(["publish 7: WorkerLost { silent_for: 60s } after 1"]);
}

#[test]
fn a_worker_that_is_back_too_late_is_told_to_cancel_and_what_it_made_is_dropped() {
    let mut it = Recorder::started(retries(1));
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.deliver(8);
    it.expect(["run 7 on w1", "run 8 on w1"]);
    it.begin(1, 7);
    it.begin(1, 8);
    it.lose_worker(1);
    it.worker(2, block(1), 2);
    it.seconds(60);
    it.expect(["run 7 on w2 again (1)", "run 8 on w2 again (1)"]);
    it.finish(2, 8);
    it.expect(["publish 8: result"]);
    it.hello(3, block(0), 2, &[(7, HeldState::Running), (8, HeldState::Finished)]);
    it.expect(["cancel 7 on w3", "forget 8 on w3"]);
    assert_eq!(it.count(|event| matches!(event, Event::TaskRunTwice { .. })), 2);
}

#[test]
fn the_first_result_is_final_whoever_it_comes_from() {
    let mut it = Recorder::started(retries(1));
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.lose_worker(1);
    it.worker(2, block(1), 1);
    it.seconds(60);
    it.expect(["run 7 on w2 again (1)"]);
    it.hello(3, block(0), 1, &[(7, HeldState::Finished)]);
    it.finish_with(3, 7, "first");
    it.expect(["cancel 7 on w2", "publish 7: first"]);
    it.finish_with(2, 7, "second");
    it.expect(["forget 7 on w2"]);
    it.confirm(7);
    it.expect(["settled [7] to w3", "ack 1"]);
}

#[test]
fn a_worker_that_forgot_a_running_task_has_failed_it() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.hello(2, block(0), 1, &[]);
    it.expect(["journal result of 7"]);
    it.journalled();
    it.expect(["publish 7: WorkerForgot after 1"]);
}

#[test]
fn a_block_that_ends_fails_what_it_had_begun_at_once_with_its_reason_and_neighbours() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 3);
    for number in 1..=3 {
        it.deliver(number);
    }
    it.expect(["run 1 on w1", "run 2 on w1", "run 3 on w1"]);
    it.begin(1, 1);
    it.begin(1, 2);
    it.block_ends(block(0), BlockEndKind::OutOfMemory);
    it.expect(["journal result of 1", "journal result of 2"]);
    it.journalled();
    let told = |number| {
        format!(
            "publish {number}: BlockEnded {{ end: BlockEnd {{ kind: OutOfMemory, message: \"so it is\", exit: Unknown, \
             memory_limit: None, output: \"\" }}, neighbours: 1 }} after 1"
        )
    };
    it.expect([told(1).as_str(), told(2).as_str()]);
    it.worker(2, block(1), 1);
    it.expect(["run 3 on w2"]);
}

#[test]
fn a_cancelled_task_is_ended_wherever_it_is() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.deliver(8);
    it.expect(["run 7 on w1"]);
    it.give(Input::Cancel { task: task(8) });
    it.give(Input::Cancel { task: task(7) });
    it.expect(["journal result of 8", "cancel 7 on w1", "journal result of 7"]);
    it.journalled();
    it.expect(["publish 7: Cancelled after 0", "publish 8: Cancelled after 0"]);
    it.finish(1, 7);
    it.expect(["forget 7 on w1"]);
}

#[test]
fn a_denied_task_is_never_begun_and_no_acknowledgement_covers_it_before_its_result_is_confirmed() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver_denied(7);
    it.expect(["journal result of 7"]);
    it.journalled();
    it.expect(["publish 7: Denied { function: FunctionId(00000000-0000-0000-0000-00000000004d) } after 0"]);
    it.deliver(8);
    it.expect(["run 8 on w1"]);
    it.begin(1, 8);
    it.finish(1, 8);
    it.expect(["publish 8: result"]);
    it.confirm(8);
    it.expect(["settled [8] to w1", "ack 2"]);
    it.confirm(7);
    it.expect(["ack 1"]);
}

#[test]
fn an_impossible_task_gets_the_workers_words() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.refuse(
        1,
        7,
        RefusalReason::Impossible {
            why: "no such serializer".into(),
        },
    );
    it.expect(["run 7 on w1", "journal result of 7"]);
    it.journalled();
    it.expect(["publish 7: Refused { reason: \"no such serializer\" } after 0"]);
}

#[test]
fn a_worker_that_drains_gets_nothing_more_and_keeps_what_it_has() {
    let mut it = Recorder::started(settings());
    it.worker(1, block(0), 2);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.give(Input::WorkerDraining {
        worker: waypost_engine::WorkerId(1),
    });
    it.deliver(8);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.credit(1, 1);
    it.expect([]);
}

#[test]
fn on_accept_acknowledges_once_the_task_stands_in_the_journal() {
    let mut it = Recorder::started(Settings {
        acknowledge: Acknowledge::OnAccept,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["journal accepted 7", "run 7 on w1"]);
    it.journalled();
    it.expect(["ack 1"]);
    it.begin(1, 7);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1"]);
}

#[test]
fn on_accept_without_a_journal_leaves_the_task_with_the_broker() {
    let mut it = Recorder::started(Settings {
        acknowledge: Acknowledge::OnAccept,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["journal accepted 7", "run 7 on w1"]);
    it.journal_fails();
    it.expect([]);
    it.finish(1, 7);
    it.expect(["publish 7: result"]);
    it.confirm(7);
    it.expect(["settled [7] to w1", "ack 1"]);
}

#[test]
fn at_most_once_journals_the_start_before_the_task_is_sent_and_never_tries_again() {
    let mut it = Recorder::started(Settings {
        guarantee: Guarantee::AtMostOnce,
        ..retries(3)
    });
    it.worker(1, block(0), 1);
    it.credit(1, 1);
    it.deliver(7);
    it.deliver(8);
    it.expect(["journal start 0 of 7 in 2-0"]);
    it.journalled();
    it.expect(["run 7 on w1"]);
    it.block_ends(block(0), BlockEndKind::Evicted);
    it.expect(["journal result of 7"]);
}

#[test]
fn at_most_once_gives_to_another_what_a_worker_refuses_to_begin() {
    let mut it = Recorder::started(Settings {
        guarantee: Guarantee::AtMostOnce,
        acknowledge: Acknowledge::OnAccept,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.journalled();
    it.forget_outputs();
    it.refuse(1, 7, RefusalReason::Draining);
    it.forget_outputs();
    it.worker(2, block(1), 1);
    it.expect(["journal start 0 of 7 in 2-1"]);
    it.journalled();
    it.expect(["run 7 on w2"]);
}

#[test]
fn at_most_once_does_not_run_what_it_could_not_remember() {
    let mut it = Recorder::started(Settings {
        guarantee: Guarantee::AtMostOnce,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["journal start 0 of 7 in 2-0"]);
    it.journal_fails();
    it.expect(["journal result of 7"]);
}

#[test]
fn credit_that_was_reserved_for_a_task_that_was_not_sent_is_there_for_the_next() {
    let mut it = Recorder::started(Settings {
        guarantee: Guarantee::AtMostOnce,
        ..settings()
    });
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.deliver(8);
    it.expect(["journal start 0 of 7 in 2-0"]);
    it.journal_fails();
    it.expect(["journal result of 7", "journal start 0 of 8 in 2-0"]);
    it.lose_worker(1);
    it.hello(2, block(0), 1, &[]);
    it.expect([]);
    it.journalled();
    it.expect(["publish 7: JournalFailed after 0"]);
    it.credit(2, 1);
    it.expect(["journal start 0 of 8 in 2-0"]);
    it.give(Input::WorkerDraining {
        worker: waypost_engine::WorkerId(2),
    });
    it.journalled();
    it.expect([]);
}

#[test]
fn a_task_that_was_given_up_and_not_given_to_another_is_taken_back_from_its_worker() {
    let mut it = Recorder::started(retries(1));
    it.worker(1, block(0), 1);
    it.deliver(7);
    it.expect(["run 7 on w1"]);
    it.begin(1, 7);
    it.lose_worker(1);
    it.seconds(60);
    it.hello(2, block(0), 1, &[(7, HeldState::Finished)]);
    it.expect([]);
    it.die(2, 7);
    it.expect(["forget 7 on w2"]);
    it.credit(2, 1);
    it.expect(["run 7 on w2 again (1)"]);
}
