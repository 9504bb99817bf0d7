use super::*;

#[test]
fn a_task_is_begun_finished_and_settled_and_another_is_asked_for() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.answer(0, 1, 10);
    world.expect_finished(1, 10);
    world.expect_credit(1);
    world.happen(settled(1));
    world.expect_nothing();
    let (held, settled) = world.machine.held(world.now);
    assert!(held.is_empty());
    assert_eq!(settled, [task(1)]);
}

#[test]
fn a_task_that_is_here_or_was_settled_is_not_begun_again() {
    let mut world = World::connected(2);
    world.give(1);
    world.expect_begun(1, 0);
    world.give(1);
    world.expect_refused(1, Refusal::Duplicate);
    world.expect_credit(1);
    world.answer(0, 1, 1);
    world.expect_finished(1, 1);
    world.expect_credit(1);
    world.happen(settled(1));
    world.give(1);
    world.expect_refused(1, Refusal::Duplicate);
    world.expect_credit(1);
    // An hour later nobody knows it any more.
    world.now += Duration::from_secs(3601);
    world.give(1);
    world.expect_begun(1, 0);
}

#[test]
fn a_cancel_that_comes_before_its_task_is_remembered() {
    let mut world = World::connected(1);
    world.happen(Event::Agent(ToWorker::Cancel {
        task: task(1),
        attempt: 0,
    }));
    world.expect_nothing();
    world.give(1);
    world.expect_refused(1, Refusal::Cancelled);
}

#[test]
fn a_task_that_ignores_its_timeout_is_ended_five_seconds_later() {
    let mut world = World::with(Settings {
        slots: 1,
        task_timeout: Some(Duration::from_secs(10)),
        held_bytes_max: 1000,
        memory_per_slot: None,
    });
    world.connect();
    world.expect_credit(1);
    world.give(1);
    world.expect_begun(1, 0);
    assert_eq!(world.machine.deadline(), Some(Duration::from_secs(15)));
    world.pass(Duration::from_millis(14_999));
    world.expect_nothing();
    world.pass(Duration::from_millis(1));
    world.expect(Action::Kill { process: 100 });
    world.exit(100, Ending::Signal(9));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.expect_failed(1, &Cause::TimedOut { limit_ms: 10_000 });
}
