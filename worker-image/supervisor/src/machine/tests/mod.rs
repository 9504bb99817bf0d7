//! The machine, driven by hand: no process, no socket, and a clock that is told to pass.

mod executors;
mod link;
mod tasks;

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
