//! Blocks come and go with the tasks.

use std::time::Duration;

use waypost_engine::{BlockEndKind, Bound, Event, Input, Scaling, Settings, StartOutcome};

use crate::recorder::{Recorder, block, old_block, settings};

fn scaling(scaling: Scaling) -> Settings {
    Settings {
        slots_per_block: 2,
        scaling,
        ..settings()
    }
}

fn up_to(max_blocks: u32) -> Scaling {
    Scaling {
        init_blocks: 0,
        max_blocks,
        ..Scaling::default()
    }
}

#[test]
fn init_blocks_are_started_before_there_is_a_task() {
    let mut it = Recorder::started(scaling(Scaling {
        init_blocks: 2,
        ..up_to(4)
    }));
    it.expect(["start block 2-0", "start block 2-1"]);
}

#[test]
fn nothing_is_started_before_we_hold_the_queue() {
    let mut it = Recorder::new(
        scaling(Scaling {
            init_blocks: 1,
            ..up_to(4)
        }),
        vec![],
    );
    it.give(Input::BlocksListed { blocks: vec![] });
    it.expect([]);
    it.consume();
    it.expect(["start block 2-0"]);
}

#[test]
fn blocks_are_started_as_tasks_come_and_never_more_than_allowed() {
    let mut it = Recorder::started(scaling(up_to(3)));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.deliver(2);
    it.expect([]);
    it.deliver(3);
    it.expect(["start block 2-1"]);
    for number in 4..=9 {
        it.deliver(number);
    }
    it.expect(["start block 2-2"]);
}

#[test]
fn what_waits_at_the_broker_counts() {
    let mut it = Recorder::started(Settings {
        prefetch: waypost_engine::Prefetch { initial: 1, max: 1 },
        ..scaling(up_to(5))
    });
    it.deliver(1);
    it.expect(["ask depth", "start block 2-0"]);
    it.give(Input::QueueDepth { ready: Some(5) });
    it.expect(["start block 2-1", "start block 2-2"]);
}

#[test]
fn starts_in_flight_are_bounded() {
    let mut it = Recorder::started(scaling(Scaling {
        starts_in_flight: 2,
        starts_in_flight_max: 2,
        ..up_to(5)
    }));
    for number in 1..=10 {
        it.deliver(number);
    }
    it.expect(["start block 2-0", "start block 2-1"]);
    it.worker(1, block(0), 2);
    it.expect(["start block 2-2", "run 1 on w1", "run 2 on w1"]);
}

#[test]
fn all_that_are_wanted_are_started_once_one_has_come_up() {
    let mut it = Recorder::started(scaling(Scaling {
        starts_in_flight: 1,
        ..up_to(5)
    }));
    for number in 1..=10 {
        it.deliver(number);
    }
    it.expect(["start block 2-0"]);
    it.hello(1, block(0), 2, &[]);
    it.expect([
        "start block 2-1",
        "start block 2-2",
        "start block 2-3",
        "start block 2-4",
    ]);
}

#[test]
fn a_warm_reserve_is_kept_beyond_what_tasks_need() {
    let mut it = Recorder::started(scaling(Scaling {
        min_idle_blocks: 1,
        ..up_to(3)
    }));
    it.expect(["start block 2-0"]);
    it.worker(1, block(0), 2);
    it.seconds(3600);
    it.expect([]);
    it.deliver(1);
    it.expect(["run 1 on w1", "start block 2-1"]);
}

#[test]
fn the_bound_that_keeps_more_blocks_from_being_wanted_is_named() {
    let mut it = Recorder::started(scaling(Scaling {
        bound: Bound::MaxMemory,
        ..up_to(1)
    }));
    it.deliver(1);
    assert_eq!(it.status().blocks_bounded_by, None);
    it.deliver(2);
    it.deliver(3);
    it.expect(["start block 2-0"]);
    assert_eq!(it.status().blocks_bounded_by, Some(Bound::MaxMemory));
}

#[test]
fn without_idle_time_a_gap_between_two_tasks_ends_no_block() {
    let mut it = Recorder::started(scaling(Scaling {
        max_idletime: Duration::ZERO,
        ..up_to(1)
    }));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.worker(1, block(0), 2);
    it.expect(["run 1 on w1"]);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1"]);
    it.seconds(4);
    it.expect([]);
    it.deliver(2);
    it.credit(1, 1);
    it.expect(["run 2 on w1"]);
    it.finish(1, 2);
    it.expect(["publish 2: result"]);
    it.confirm(2);
    it.expect(["settled [2] to w1", "ack 2"]);
    it.seconds(4);
    it.expect([]);
    it.seconds(1);
    it.expect(["drain w1"]);
}

#[test]
fn the_block_that_has_been_idle_longest_ends_first_and_min_blocks_stay() {
    let mut it = Recorder::started(scaling(Scaling {
        init_blocks: 3,
        min_blocks: 1,
        ..up_to(3)
    }));
    it.expect(["start block 2-0", "start block 2-1", "start block 2-2"]);
    for number in [1, 0, 2] {
        it.worker(u64::from(number) + 1, block(number), 2);
        it.seconds(10);
    }
    it.seconds(89);
    it.expect([]);
    it.seconds(1);
    it.expect(["drain w2"]);
    it.seconds(10);
    it.expect(["drain w1"]);
    it.block_ends(block(1), BlockEndKind::Completed);
    it.seconds(30);
    it.expect(["delete block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.seconds(3600);
    it.expect([]);
    assert_eq!(it.status().blocks_up, 1);
    assert_eq!(
        it.count(|event| matches!(event, Event::BlockEnded { expected: false, .. })),
        0
    );
}

#[test]
fn a_block_with_a_task_or_an_unsettled_result_is_never_ended_for_idleness() {
    let mut it = Recorder::started(scaling(up_to(1)));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.worker(1, block(0), 2);
    it.expect(["run 1 on w1"]);
    it.begin(1, 1);
    it.seconds(600);
    it.finish(1, 1);
    it.expect(["publish 1: result"]);
    it.seconds(60);
    it.expect([]);
    it.confirm(1);
    it.expect(["settled [1] to w1", "ack 1"]);
    it.seconds(119);
    it.expect([]);
    it.seconds(1);
    it.expect(["drain w1"]);
}

#[test]
fn a_draining_block_gets_no_task_and_another_is_started_once_there_is_room() {
    let mut it = Recorder::started(scaling(Scaling {
        init_blocks: 1,
        ..up_to(1)
    }));
    it.expect(["start block 2-0"]);
    it.worker(1, block(0), 2);
    it.seconds(120);
    it.expect(["drain w1"]);
    it.deliver(1);
    it.credit(1, 1);
    it.expect([]);
    it.block_ends(block(0), BlockEndKind::Completed);
    it.expect(["start block 2-1"]);
}

#[test]
fn a_min_block_that_ended_is_replaced_at_once_if_it_had_proved_itself() {
    let mut it = Recorder::started(scaling(Scaling {
        min_blocks: 1,
        ..up_to(1)
    }));
    it.expect(["start block 2-0"]);
    it.worker(1, block(0), 2);
    it.seconds(60);
    it.block_ends(block(0), BlockEndKind::Evicted);
    it.expect(["start block 2-1"]);
}

#[test]
fn blocks_that_end_one_after_the_other_are_started_ever_later() {
    let mut it = Recorder::started(scaling(Scaling {
        min_blocks: 1,
        ..up_to(1)
    }));
    it.expect(["start block 2-0"]);
    for number in 0..3 {
        it.worker(u64::from(number) + 1, block(number), 2);
        it.block_ends(block(number), BlockEndKind::Crashed);
        it.wait(Duration::from_millis(499 << number));
        it.expect([]);
        it.wait(Duration::from_millis(501 << number));
        let next = format!("start block 2-{}", number + 1);
        it.expect([next.as_str()]);
    }
}

#[test]
fn after_so_many_failed_starts_the_waiting_tasks_are_told_why() {
    let mut it = Recorder::started(scaling(Scaling {
        start_failures_max: 2,
        ..up_to(1)
    }));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.block_ends(block(0), BlockEndKind::Crashed);
    it.expect([]);
    it.seconds(1);
    it.expect(["start block 2-1"]);
    it.block_ends(block(1), BlockEndKind::Crashed);
    it.expect(["journal result of 1"]);
    it.journalled();
    it.expect([
        "publish 1: NoBlockStarts { failures: 2, end: BlockEnd { kind: Crashed, message: \"so it is\", exit: \
         Unknown, memory_limit: None, output: \"\" } } after 0",
    ]);
}

#[test]
fn a_block_that_never_runs_is_deleted_and_another_is_tried() {
    let mut it = Recorder::started(scaling(up_to(1)));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.give(Input::BlockStarted {
        block: block(0),
        outcome: StartOutcome::Unknown,
    });
    it.seconds(600);
    it.expect(["delete block 2-0"]);
    it.give(Input::BlockDeleted {
        block: block(0),
        done: false,
    });
    it.seconds(1);
    it.expect(["delete block 2-0"]);
    it.give(Input::BlockDeleted {
        block: block(0),
        done: true,
    });
    it.block_ends(block(0), BlockEndKind::Deleted);
    it.expect_failure(1, &["CreationTimeout", "it did not run within 600 s"]);
    it.deliver(2);
    it.seconds(1);
    it.expect(["start block 2-1"]);
}

#[test]
fn a_silent_block_is_kept_for_a_while_and_then_deleted() {
    let mut it = Recorder::started(scaling(up_to(0)));
    it.worker(1, block(0), 2);
    it.lose_worker(1);
    it.seconds(899);
    it.expect([]);
    it.seconds(1);
    it.expect(["delete block 2-0"]);
}

#[test]
fn blocks_of_an_earlier_life_are_taken_over_and_counted() {
    let mut it = Recorder::new(
        scaling(Scaling {
            init_blocks: 2,
            ..up_to(2)
        }),
        vec![],
    );
    it.start(vec![old_block(0), old_block(1)]);
    it.expect([]);
    it.worker(1, old_block(0), 2);
    it.worker(2, old_block(1), 2);
    it.expect([]);
}

#[test]
fn an_idle_block_of_an_earlier_life_is_ended_though_nothing_else_ever_happens() {
    let mut it = Recorder::new(
        scaling(Scaling {
            init_blocks: 1,
            ..up_to(1)
        }),
        vec![],
    );
    it.give(Input::BlocksListed {
        blocks: vec![old_block(0)],
    });
    it.worker(1, old_block(0), 2);
    it.seconds(300);
    it.consume();
    it.seconds(5);
    it.expect(["drain w1"]);
}

#[test]
fn nothing_is_created_or_deleted_while_somebody_else_may_hold_the_queue() {
    let mut it = Recorder::started(scaling(up_to(2)));
    it.deliver(1);
    it.expect(["start block 2-0"]);
    it.lose_consumer();
    it.seconds(600);
    it.expect([]);
    it.consume();
    it.expect(["delete block 2-0"]);
}
