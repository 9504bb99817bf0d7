use std::time::Duration;

use waypost_engine::{
    BlockEnd, BlockEndKind, BlockId, ExecutorExit, HeldState, HeldTask, Input, RefusalReason, TaskId, ToWorker,
    WorkerId,
};

use crate::happening::{Happening, Via};
use crate::state::{Held, Running};
use crate::world::World;

/// A worker that no agent has answered for so long ends itself.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

impl World<'_> {
    pub(crate) fn dial_after(&mut self, block: BlockId, pause: Duration) {
        let dial = self.number();
        if let Some(machine) = self.machines.get_mut(&block) {
            machine.dial = dial;
            self.after(pause, Happening::Dial { block, dial });
        }
    }

    /// A link breaks: what is under way on it is lost, and each side sees it in its own time.
    pub(crate) fn break_link(&mut self, block: BlockId, agent_sees: bool) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        let Some(worker) = machine.session.take() else { return };
        machine.silent_since.get_or_insert(now);
        machine.redials = 0;
        // What has not begun may be given to others while nobody hears of it: it is dropped, or kept and not begun until
        // the agent has said what it thinks of it.
        machine.heard = false;
        machine.early.clear();
        if !self.options.keeps_queue {
            machine.queue.clear();
        }
        let life = machine.agent;
        self.trace(|| format!("the link of block {block} (w{worker}) breaks"));
        self.unlink(life, worker);
        if agent_sees {
            let latency = self.chance.millis(1, 15_000);
            let (via, input) = (Via::Process, Input::WorkerLost { worker });
            self.after(latency, Happening::ToAgent { life, via, input });
        }
        let longest = if agent_sees {
            Duration::from_secs(5)
        } else {
            self.options.redial_delay
        };
        let pause = self
            .chance
            .time(longest / 1000, longest)
            .max(Duration::from_millis(if agent_sees { 1 } else { 50 }));
        self.dial_after(block, pause);
    }

    /// An agent has a link no more.
    pub(super) fn unlink(&mut self, life: u64, worker: WorkerId) {
        let now = self.now;
        let Some(agent) = self.agent_of_mut(life) else { return };
        if let Some(block) = agent.links.remove(&worker)
            && let Some(since) = agent.silent_since.get_mut(&block)
        {
            since.get_or_insert(now);
        }
    }

    /// A worker dials, and reaches any one of the agents that live.
    pub(crate) fn dial(&mut self, block: BlockId, dial: u64) {
        let now = self.now;
        let lives = self.alive();
        let life = self.chance.choose(&lives);
        let agent = life.and_then(|life| self.agent_of(life));
        let frozen = agent.is_some_and(|agent| agent.is_frozen(now));
        let answers = agent.is_some() && !frozen;
        let listening = answers && agent.is_some_and(|agent| agent.listening);
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        if !machine.exists || machine.dead || machine.session.is_some() || machine.dial != dial {
            return;
        }
        let orphaned = machine
            .silent_since
            .is_some_and(|since| now.since(since) > ORPHAN_TIMEOUT);
        if orphaned {
            self.block_dies(
                block,
                BlockEnd::new(BlockEndKind::Completed, "nobody answered its worker"),
            );
            return;
        }
        let reachable = machine.unreachable_until.is_none_or(|until| until <= now);
        if reachable && answers && !listening && machine.silent_since.is_some() {
            machine.silent_since = Some(now);
        }
        if reachable && frozen {
            self.dial_after(block, Self::DIAL_TIMEOUT);
            return;
        }
        if !listening || !reachable {
            machine.redials += 1;
            let redials = machine.redials;
            let pause =
                Duration::from_millis(50 << redials.min(5)).min(Duration::from_secs(if redials > 60 { 5 } else { 1 }));
            let half = u64::try_from(pause.as_micros()).unwrap_or(0) / 2;
            let jitter = Duration::from_micros(self.chance.range(0, half));
            self.dial_after(block, pause / 2 + jitter);
            return;
        }
        if let Some(life) = life {
            self.say_hello(block, life);
        }
    }

    fn say_hello(&mut self, block: BlockId, life: u64) {
        let worker = WorkerId(self.number());
        let (slots, prefetch, now) = (self.options.slots, self.options.prefetch, self.now);
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        machine.session = Some(worker);
        machine.agent = life;
        machine.clock = now;
        machine.idle_since = now;
        let mut held: Vec<HeldTask> = Vec::new();
        held.extend(machine.queue.iter().map(|&(task, attempt)| HeldTask {
            task,
            attempt,
            state: HeldState::Queued,
        }));
        held.extend(machine.running.values().map(|run| HeldTask {
            task: run.task,
            attempt: run.attempt,
            state: HeldState::Running,
        }));
        held.extend(machine.held.iter().map(|(task, held)| HeldTask {
            task: *task,
            attempt: held.attempt,
            state: HeldState::Finished,
        }));
        held.extend(machine.settled.iter().map(|task| HeldTask {
            task: *task,
            attempt: 0,
            state: HeldState::Settled,
        }));
        let has = u32::try_from(machine.queue.len() + machine.running.len()).unwrap_or(u32::MAX);
        let credit = if machine.draining {
            0
        } else {
            (slots + prefetch).saturating_sub(has)
        };
        machine.credit = credit;
        machine.result_credit = 0;
        machine.unsent = machine.held.keys().copied().collect();
        let draining = machine.draining;
        let acknowledged = held
            .iter()
            .any(|held| held.state == HeldState::Finished && self.broker.acknowledged.contains(&held.task));
        let holds = held
            .iter()
            .any(|held| matches!(held.state, HeldState::Running | HeldState::Finished));
        let consuming = !self.broker.channels.is_empty();
        if acknowledged {
            self.mark("hello with a result whose task is acknowledged");
        }
        if holds {
            self.mark(if consuming {
                "redelivery before redial"
            } else {
                "redial before redelivery"
            });
        }
        if let Some(agent) = self.agent_of_mut(life) {
            agent.links.insert(worker, block);
        }
        self.tell_agent(
            block,
            Input::WorkerHello {
                worker,
                block,
                slots,
                held,
            },
        );
        self.tell_agent(block, Input::WorkerCredit { worker, tasks: credit });
        if draining {
            self.tell_agent(block, Input::WorkerDraining { worker });
        }
    }

    /// Sends something to the agent over the block's link, in its order.
    pub(super) fn tell_agent(&mut self, block: BlockId, input: Input) {
        let (latency, overtaken) = (self.latency(), self.options.overtaken);
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        let Some(worker) = machine.session else { return };
        let life = machine.agent;
        // A small message may overtake a large one, and never the other way round.
        let mut at = machine.clock.max(now + latency);
        if matches!(&input, Input::TaskFinished { body, .. } if body.len() > overtaken) {
            at = at + latency;
        } else {
            machine.clock = at;
        }
        self.at(
            at,
            Happening::ToAgent {
                life,
                via: Via::Worker(worker),
                input,
            },
        );
    }

    pub(crate) fn worker_receives(&mut self, block: BlockId, worker: WorkerId, message: ToWorker) {
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        if machine.session != Some(worker) {
            return;
        }
        match message {
            ToWorker::Run { task, attempt, .. } => {
                if machine.credit == 0 {
                    self.checkers
                        .violate(format!("block {block} was sent task {task} without credit"));
                    return;
                }
                machine.credit -= 1;
                let refusal = if machine.has(task) || machine.settled.contains(&task) {
                    Some(RefusalReason::Duplicate)
                } else if machine.early.remove(&(task, attempt)) {
                    Some(RefusalReason::Recalled)
                } else if machine.draining {
                    Some(RefusalReason::Draining)
                } else {
                    None
                };
                if let Some(reason) = refusal {
                    self.refuse(block, task, attempt, reason);
                    self.grant(block);
                    return;
                }
                machine.queue.push_back((task, attempt));
                self.begin_tasks(block);
            }
            ToWorker::Recall { task, attempt } => {
                let before = machine.queue.len();
                machine.queue.retain(|queued| *queued != (task, attempt));
                if machine.queue.len() < before {
                    self.refuse(block, task, attempt, RefusalReason::Recalled);
                    self.grant(block);
                }
            }
            ToWorker::Cancel { task, attempt } => self.cancel(block, task, attempt),
            ToWorker::Settled { tasks } => {
                for task in tasks {
                    machine.held.remove(&task);
                    machine.settled.insert(task);
                }
                machine.idle_since = self.now;
            }
            ToWorker::Forget { task, attempt } => {
                if machine.held.get(&task).is_some_and(|held| held.attempt == attempt) {
                    machine.held.remove(&task);
                    let agent = machine.agent;
                    let disk = self.author(agent).disk;
                    self.checkers.forgotten(task, block, attempt, disk);
                }
            }
            ToWorker::ResultCredit { bytes } => {
                machine.result_credit = machine.result_credit.saturating_add_unsigned(bytes);
                machine.heard = true;
                self.send_results(block);
                self.begin_tasks(block);
            }
            ToWorker::Drain => {
                self.begin_draining(block);
            }
            ToWorker::Close => self.break_link(block, false),
        }
        self.end_if_drained(block);
        self.note_idleness(block);
    }

    pub(super) fn note_idleness(&mut self, block: BlockId) {
        let now = self.now;
        if let Some(machine) = self.machines.get_mut(&block)
            && machine.is_busy()
        {
            machine.idle_since = now;
        }
    }

    /// The worker takes no more tasks, and refuses those that it has not begun.
    pub(crate) fn begin_draining(&mut self, block: BlockId) {
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        machine.draining = true;
        if machine.session.is_none() {
            return;
        }
        for (task, attempt) in std::mem::take(&mut machine.queue) {
            self.refuse(block, task, attempt, RefusalReason::Draining);
        }
    }

    /// The worker does not run a task that it was sent.
    pub(super) fn refuse(&mut self, block: BlockId, task: TaskId, attempt: u32, reason: RefusalReason) {
        let Some(worker) = self.machines.get(&block).and_then(|machine| machine.session) else {
            return;
        };
        self.tell_agent(
            block,
            Input::TaskRefused {
                worker,
                task,
                attempt,
                reason,
            },
        );
    }

    /// The platform waits no longer for a worker that it told to end: what runs is cut off, and the worker says so.
    pub(crate) fn grace_over(&mut self, block: BlockId, end: BlockEnd) {
        let Some(machine) = self.machines.get_mut(&block).filter(|machine| machine.exists) else {
            return;
        };
        for (run, Running { task, attempt, .. }) in std::mem::take(&mut machine.running) {
            machine.held.insert(
                task,
                Held {
                    attempt,
                    body: None,
                    how: ExecutorExit::GraceOver,
                },
            );
            machine.unsent.push_back(task);
            self.checkers.run_ends(task, run, true);
        }
        self.send_results(block);
        let pause = self.chance.millis(10, 2_000);
        self.after(pause, Happening::BlockDies { block, end });
    }

    pub(super) fn end_if_drained(&mut self, block: BlockId) {
        let Some(machine) = self.machines.get(&block) else {
            return;
        };
        if machine.exists && machine.draining && machine.is_done() {
            let latency = self.latency();
            self.after(
                latency,
                Happening::BlockDies {
                    block,
                    end: BlockEnd::new(BlockEndKind::Completed, "drained"),
                },
            );
        }
    }

    pub(super) fn grant(&mut self, block: BlockId) {
        let Some(machine) = self.machines.get_mut(&block) else {
            return;
        };
        let Some(worker) = machine.session else { return };
        if !machine.draining {
            machine.credit += 1;
            self.tell_agent(block, Input::WorkerCredit { worker, tasks: 1 });
        }
    }

    /// A worker is told to end by its platform, and says so.
    pub(crate) fn terminate(&mut self, block: BlockId) {
        self.begin_draining(block);
        if let Some(worker) = self.machines.get(&block).and_then(|machine| machine.session) {
            self.tell_agent(block, Input::WorkerDraining { worker });
        }
        self.end_if_drained(block);
    }
}
