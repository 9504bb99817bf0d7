use super::*;

#[test]
fn a_task_that_comes_before_its_executor_is_forked_waits_for_it() {
    let mut world = World::new(1);
    world.exit(100, Ending::Signal(9));
    world.pass(Duration::from_secs(1));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.connect();
    world.expect_credit(1);
    world.give(1);
    world.expect_nothing();
    world.fork(0, 2, 200);
    world.expect_begun(1, 0);
    world.answer(0, 2, 1);
    world.expect_finished(1, 1);
}

#[test]
fn a_dead_executor_fails_its_task_and_is_replaced_in_the_same_step() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.exit(100, Ending::Signal(11));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.expect_failed(1, &Cause::Signal { number: 11 });
    world.expect_credit(1);
    // What the dead one may still have in its pipe is of no concern.
    world.answer(0, 1, 10);
    world.expect_nothing();
}

#[test]
fn an_executor_that_closes_its_channel_is_ended_if_its_end_is_not_told_soon() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.happen(Event::ChannelLost { slot: 0, generation: 1 });
    world.expect_nothing();
    assert_eq!(world.machine.deadline(), Some(Duration::from_secs(1)));
    world.pass(Duration::from_secs(1));
    world.expect(Action::Kill { process: 100 });
    world.exit(100, Ending::Signal(9));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.expect_failed(1, &Cause::LostChannel);
}

#[test]
fn an_executor_that_closes_its_channel_by_ending_is_told_by_its_end() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.happen(Event::ChannelLost { slot: 0, generation: 1 });
    world.exit(100, Ending::Exit(3));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.expect_failed(1, &Cause::Exit { code: 3 });
    world.expect_credit(1);
    world.pass(Duration::from_secs(10));
    world.expect_nothing();
}

#[test]
fn a_result_that_was_written_before_a_cancel_counts_and_the_executor_is_replaced() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.happen(Event::Agent(ToWorker::Cancel {
        task: task(1),
        attempt: 0,
    }));
    world.expect(Action::Kill { process: 100 });
    world.answer(0, 1, 10);
    world.expect_finished(1, 10);
    world.expect_credit(1);
    world.give(2);
    world.expect_nothing();
    world.exit(100, Ending::Signal(9));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.fork(0, 2, 200);
    world.expect_begun(2, 0);
}

#[test]
fn near_the_memory_limit_the_largest_executor_is_ended_and_only_one_at_a_time() {
    let mut world = World::connected(2);
    world.give(1);
    world.expect_begun(1, 0);
    world.give(2);
    world.expect_begun(2, 1);
    let memory = |used| Event::Memory {
        used,
        limit: 1064 << 20,
        slots: vec![
            SlotMemory {
                slot: 0,
                resident: 10,
                peak: 20,
            },
            SlotMemory {
                slot: 1,
                resident: 30,
                peak: 40,
            },
        ],
    };
    world.happen(memory(1000 << 20));
    world.expect_nothing();
    world.happen(memory(1020 << 20));
    world.expect(Action::Kill { process: 101 });
    world.happen(memory(1060 << 20));
    world.expect_nothing();
    world.exit(101, Ending::Signal(9));
    world.expect(Action::Start { slot: 1, generation: 2 });
    let limit = 500 << 20;
    world.expect_failed(2, &Cause::OutOfMemory { peak: 40, limit });
}

#[test]
fn a_task_whose_executor_the_kernel_ended_for_want_of_memory_is_told_so() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    let limit = 164 << 20;
    world.happen(Event::Memory {
        used: limit / 10 * 9,
        limit,
        slots: vec![SlotMemory {
            slot: 0,
            resident: 30,
            peak: 40,
        }],
    });
    world.expect_nothing();
    world.exit(100, Ending::OutOfMemory { limit });
    world.expect(Action::Start { slot: 0, generation: 2 });
    let share = 100 << 20;
    world.expect_failed(1, &Cause::OutOfMemory { peak: 40, limit: share });
}

#[test]
fn a_fork_that_fails_is_tried_again_and_the_task_waits_for_it() {
    let mut world = World::connected(1);
    world.exit(100, Ending::Signal(9));
    world.pass(Duration::from_secs(1));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.give(1);
    let failed = |generation| Event::CannotStart {
        slot: 0,
        generation,
        reason: "no memory".to_owned(),
    };
    world.happen(failed(2));
    let retry = world.machine.deadline().unwrap() - world.now;
    assert!(
        retry >= Duration::from_millis(100) && retry <= Duration::from_secs(5),
        "{retry:?}"
    );
    // Without a slot that may come back nothing is asked for.
    world.expect_nothing();
    world.pass(retry);
    world.expect(Action::Start { slot: 0, generation: 3 });
    // Word of the one that never came, when another is on its way.
    world.fork(0, 2, 200);
    world.happen(failed(2));
    world.expect_nothing();
    world.fork(0, 3, 300);
    world.expect_begun(1, 0);
}

#[test]
fn a_task_that_waits_for_an_executor_that_never_comes_is_begun_by_a_free_one() {
    let mut world = World::connected(2);
    world.exit(100, Ending::Signal(9));
    world.pass(Duration::from_secs(1));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.give(1);
    world.expect_begun(1, 1);
    world.give(2);
    world.happen(Event::CannotStart {
        slot: 0,
        generation: 2,
        reason: "no memory".to_owned(),
    });
    world.expect_nothing();
    world.answer(1, 1, 1);
    world.expect_begun(2, 1);
}

#[test]
fn an_executor_that_is_lost_before_its_process_is_known_is_given_nothing() {
    let mut world = World::connected(1);
    world.exit(100, Ending::Signal(9));
    world.pass(Duration::from_secs(1));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.happen(Event::ChannelLost { slot: 0, generation: 2 });
    world.give(1);
    world.fork(0, 2, 200);
    world.expect_nothing();
    world.exit(200, Ending::Exit(1));
    let pause = world.machine.deadline().unwrap() - world.now;
    world.pass(pause);
    world.expect(Action::Start { slot: 0, generation: 3 });
    world.fork(0, 3, 300);
    world.expect_begun(1, 0);
}

#[test]
fn a_python_that_cannot_be_started_fails_tasks_in_the_end() {
    let mut world = World::new(1);
    world.exit(100, Ending::Signal(9));
    world.connect();
    let mut number = 0;
    for generation in 2.. {
        world.pass(Duration::from_secs(5));
        world.expect(Action::Start { slot: 0, generation });
        if generation == 2 {
            world.expect_credit(1);
        }
        if number == 0 {
            number = 1;
            world.give(number);
        }
        world.expect_nothing();
        world.happen(Event::CannotStart {
            slot: 0,
            generation,
            reason: "no Python".to_owned(),
        });
        if matches!(world.actions.first(), Some(Action::Send(ToAgent::Failed { .. }))) {
            let reason = "no Python".to_owned();
            world.expect_failed(number, &Cause::CannotStart { reason });
            assert!(generation > 4, "not at the first failure");
            return;
        }
        world.expect_nothing();
    }
}

#[test]
fn an_executor_that_ends_again_and_again_without_a_task_is_not_remade_at_full_speed() {
    let mut world = World::new(1);
    let mut pauses = Vec::new();
    for generation in 2..12 {
        world.exit(if generation == 2 { 100 } else { 300 }, Ending::Exit(1));
        world.expect_nothing();
        let pause = world.machine.deadline().unwrap() - world.now;
        pauses.push(pause);
        world.pass(pause);
        world.expect(Action::Start { slot: 0, generation });
        world.happen(Event::Started {
            slot: 0,
            generation,
            process: 300,
        });
    }
    assert!(
        pauses[0] < Duration::from_millis(100) && pauses[9] == Duration::from_secs(5),
        "{pauses:?}"
    );
}
