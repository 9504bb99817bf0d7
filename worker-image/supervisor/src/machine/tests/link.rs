use super::*;

#[test]
fn results_are_repeated_after_a_redial_until_they_are_settled() {
    let mut world = World::connected(2);
    for number in [1, 2] {
        world.give(number);
        world.expect_begun(number, u32::try_from(number).unwrap() - 1);
    }
    world.answer(0, 1, 10);
    world.expect_finished(1, 10);
    world.expect_credit(1);
    world.happen(Event::Disconnected);
    world.answer(1, 1, 20);
    world.expect_nothing();
    let (mut held, _) = world.machine.held(world.now);
    held.sort_by_key(|held| held.task);
    assert_eq!(
        held.iter().map(|held| held.state).collect::<Vec<_>>(),
        [HeldState::Finished; 2]
    );
    world.connect();
    world.expect_finished(1, 10);
    world.expect_finished(2, 20);
    world.expect_credit(2);
    world.happen(settled(1));
    world.happen(Event::Disconnected);
    world.connect();
    world.expect_finished(2, 20);
}

#[test]
fn a_task_that_has_not_begun_is_given_up_with_the_link_and_one_that_runs_is_kept() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.happen(Event::Agent(ToWorker::Cancel {
        task: task(1),
        attempt: 0,
    }));
    world.expect(Action::Kill { process: 100 });
    world.answer(0, 1, 1);
    world.expect_finished(1, 1);
    world.expect_credit(1);
    // Its executor is about to end, so the next task waits.
    world.give(2);
    world.happen(Event::Disconnected);
    world.exit(100, Ending::Signal(9));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.expect_nothing();
    let (held, _) = world.machine.held(world.now);
    assert_eq!(held.iter().map(|held| held.task).collect::<Vec<_>>(), [task(1)]);
    world.connect();
    world.expect_finished(1, 1);
    world.expect_credit(1);
    world.give(2);
    world.fork(0, 2, 200);
    world.expect_begun(2, 0);
}

#[test]
fn results_wait_while_the_agent_gives_no_credit_and_failures_do_not() {
    let mut world = World::new(3);
    world.happen(Event::Connected { result_credit: 15 });
    world.expect_credit(3);
    for number in [1, 2, 3] {
        world.give(number);
        world.expect_begun(number, u32::try_from(number).unwrap() - 1);
    }
    world.answer(0, 1, 10);
    world.expect_finished(1, 10);
    world.expect_credit(1);
    // Five are left: the next may take it below zero, the one after that waits.
    world.answer(1, 1, 100);
    world.expect_finished(2, 100);
    world.expect_credit(1);
    world.answer(2, 1, 1);
    world.expect_credit(1);
    world.happen(Event::Agent(ToWorker::ResultCredit { bytes: 95 }));
    world.expect_nothing();
    world.happen(Event::Agent(ToWorker::ResultCredit { bytes: 1 }));
    world.expect_finished(3, 1);
}

#[test]
fn nothing_is_asked_for_while_too_much_is_held() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.answer(0, 1, 1001);
    world.expect_finished(1, 1001);
    world.expect_nothing();
    world.happen(settled(1));
    world.expect_credit(1);
}

#[test]
fn a_drain_finishes_what_runs_refuses_the_rest_and_ends_when_all_is_settled() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    let grace = Duration::from_secs(50);
    world.happen(Event::Terminate { grace });
    world.expect(Action::Send(ToAgent::Draining { grace_ms: 50_000 }));
    world.give(2);
    world.expect_refused(2, Refusal::Draining);
    world.answer(0, 1, 1);
    world.expect_finished(1, 1);
    world.expect_nothing();
    world.happen(settled(1));
    assert!(matches!(world.actions.remove(0), Action::Send(ToAgent::Goodbye { .. })));
    world.expect(Action::End { lost: 0 });
    assert_eq!(world.machine.deadline(), None);
}

#[test]
fn a_drain_without_an_agent_waits_for_one_as_long_as_the_grace_lasts() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.answer(0, 1, 1);
    world.expect_finished(1, 1);
    world.expect_credit(1);
    world.happen(Event::Disconnected);
    let grace = Duration::from_secs(50);
    world.happen(Event::Terminate { grace });
    world.expect_nothing();
    world.pass(Duration::from_secs(40));
    world.connect();
    world.expect_finished(1, 1);
    world.expect(Action::Send(ToAgent::Draining { grace_ms: 10_000 }));
    world.happen(Event::Disconnected);
    world.pass(Duration::from_secs(10));
    world.expect_nothing();
    world.pass(Duration::from_secs(5));
    world.expect(Action::End { lost: 1 });
}

#[test]
fn a_task_that_was_given_up_while_the_hello_was_under_way_is_refused_after_it() {
    let mut world = World::connected(1);
    world.give(1);
    world.expect_begun(1, 0);
    world.machine.handle(world.now, Event::Disconnected);
    let (held, _) = world.machine.held(world.now);
    assert_eq!(held.len(), 1);
    // Its result is settled elsewhere in the agent's mind before the answer: here it is simply gone.
    world.happen(settled(1));
    world.expect(Action::Kill { process: 100 });
    world.exit(100, Ending::Signal(9));
    world.expect(Action::Start { slot: 0, generation: 2 });
    world.connect();
    world.expect_refused(1, Refusal::Draining);
}
