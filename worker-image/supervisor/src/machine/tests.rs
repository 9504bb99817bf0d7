use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_link::{Cause, HeldState, Outcome, Refusal, ToAgent, ToWorker};

use super::{Action, Ending, Event, Machine, Settings, SlotMemory};

/// A machine, its clock, and what it has decided and nobody has looked at.
struct World {
    machine: Machine,
    now: Duration,
    actions: Vec<Action>,
}

fn task(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

impl World {
    /// A worker whose executors are there: slot `n` has process `100 + n`.
    fn new(slots: u32) -> Self {
        Self::with(Settings {
            slots,
            task_timeout: None,
            held_bytes_max: 1000,
            memory_per_slot: None,
        })
    }

    fn with(settings: Settings) -> Self {
        let slots = settings.slots;
        let mut world = Self {
            machine: Machine::new(settings),
            now: Duration::ZERO,
            actions: Vec::new(),
        };
        world.machine.settle(world.now);
        world.collect();
        for slot in 0..slots {
            world.expect(Action::Start { slot, generation: 1 });
            world.happen(Event::Started {
                slot,
                generation: 1,
                process: 100 + i32::try_from(slot).unwrap(),
            });
        }
        world
    }

    fn connected(slots: u32) -> Self {
        let mut world = Self::new(slots);
        world.connect();
        world.expect(Action::Send(ToAgent::Credit { tasks: slots }));
        world
    }

    fn connect(&mut self) {
        self.happen(Event::Connected { result_credit: 10_000 });
    }

    fn happen(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        self.machine.settle(self.now);
        self.collect();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.happen(Event::Tick);
    }

    fn collect(&mut self) {
        self.actions.extend(self.machine.take_actions());
    }

    /// The next thing that was decided.
    #[track_caller]
    fn expect(&mut self, action: Action) {
        assert!(!self.actions.is_empty(), "nothing was decided, not even {action:?}");
        assert_eq!(self.actions.remove(0), action);
    }

    #[track_caller]
    fn expect_nothing(&self) {
        assert_eq!(self.actions, []);
    }

    fn give(&mut self, number: u128) {
        self.happen(Event::Agent(ToWorker::Run {
            task: task(number),
            attempt: 0,
            result_serializers: Vec::new(),
            body: Bytes::from_static(b"task"),
        }));
    }

    #[track_caller]
    fn expect_begun(&mut self, number: u128, slot: u32) {
        self.expect(Action::Give {
            slot,
            task: task(number),
            serializers: Vec::new(),
            body: Bytes::from_static(b"task"),
        });
        self.expect(Action::Send(ToAgent::Started {
            task: task(number),
            attempt: 0,
            slot,
        }));
    }

    fn answer(&mut self, slot: u32, generation: u64, size: usize) {
        self.happen(Event::Answer {
            slot,
            generation,
            outcome: Outcome::Success,
            run_time_ns: 1_000_000_000,
            body: Bytes::from(vec![7; size]),
        });
    }

    fn fork(&mut self, slot: u32, generation: u64, process: i32) {
        self.happen(Event::Started {
            slot,
            generation,
            process,
        });
    }

    fn exit(&mut self, process: i32, ending: Ending) {
        self.happen(Event::Exited {
            process,
            ending,
            output: "last words".to_owned(),
        });
    }

    #[track_caller]
    fn expect_finished(&mut self, number: u128, size: usize) {
        self.expect(Action::Send(finished(number, size)));
    }

    #[track_caller]
    fn expect_failed(&mut self, number: u128, expected: &Cause) {
        let Action::Send(ToAgent::Failed {
            task: failed, failure, ..
        }) = self.actions.remove(0)
        else {
            panic!("a failure was expected")
        };
        assert_eq!((failed, &failure.cause), (task(number), expected));
    }

    #[track_caller]
    fn expect_refused(&mut self, number: u128, reason: Refusal) {
        self.expect(Action::Send(ToAgent::Refused {
            task: task(number),
            attempt: 0,
            reason,
        }));
    }

    #[track_caller]
    fn expect_credit(&mut self, tasks: u32) {
        self.expect(Action::Send(ToAgent::Credit { tasks }));
    }
}

fn finished(number: u128, size: usize) -> ToAgent {
    ToAgent::Finished {
        task: task(number),
        attempt: 0,
        outcome: Outcome::Success,
        run_time_ns: 1_000_000_000,
        body: Bytes::from(vec![7; size]),
    }
}

fn settled(number: u128) -> Event {
    Event::Agent(ToWorker::Settled {
        tasks: vec![task(number)],
    })
}

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
