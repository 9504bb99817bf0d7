use std::collections::BTreeSet;

use crate::mutation::Mutation;
use crate::state::block::{Block, Phase};
use crate::state::task::State;
use crate::state::timers::Timer;
use crate::{BlockId, Cause, Event, HeldState, HeldTask, TaskId, ToWorker, WorkerId};

impl crate::Engine {
    /// A worker dialled. What it says it has decides, task by task, over what was believed of it.
    pub(crate) fn on_hello(&mut self, worker: WorkerId, id: BlockId, slots: u32, held: &[HeldTask]) {
        if self.is_fenced() {
            self.tell(worker, ToWorker::Close);
            return;
        }
        if self.blocks.of_worker(worker).is_some_and(|block| block != id) {
            // A session has one block; who says otherwise has begun another.
            self.on_worker_lost(worker);
        }
        let returned = self.enter_hello(worker, id, slots);
        self.event(Event::WorkerJoined {
            worker,
            block: id,
            slots,
            returned: returned || !held.is_empty(),
        });
        let before: Vec<TaskId> = self
            .blocks
            .get(id)
            .map_or_else(Vec::new, |block| block.given.iter().copied().collect());
        let mut confirmed = BTreeSet::new();
        for task in held {
            if self.on_held_task(worker, id, *task) {
                confirmed.insert(task.task);
            }
        }
        for task in before {
            if !confirmed.contains(&task) {
                self.on_forgotten(task, id);
            }
        }
        self.block_answered(id);
        self.greet_ending(worker, id);
    }

    /// Brings the block up; true if it was here before.
    fn enter_hello(&mut self, worker: WorkerId, id: BlockId, slots: u32) -> bool {
        let known = self.blocks.get(id).is_some();
        if !known {
            self.found_block(id, Phase::Up);
        }
        let phase = self.blocks.get(id).map(|block| block.phase);
        let started = self
            .blocks
            .get(id)
            .filter(|block| block.phase == Phase::Starting)
            .map(|block| block.since);
        // What was to be deleted, and is there after all before that was asked for, need not be.
        let spared = phase == Some(Phase::Deleting) && self.blocks.get(id).is_some_and(|block| !block.is_doomed);
        let asked_back: Vec<TaskId> = self
            .blocks
            .get(id)
            .map_or_else(Vec::new, |block| block.given.iter().copied().collect());
        for task in asked_back {
            self.forget_recall(task);
        }
        self.blocks.begin_session(id, worker, self.now);
        let (now, ending) = (
            self.now,
            matches!(phase, Some(Phase::Draining | Phase::Deleting)) && !spared,
        );
        self.blocks.change(id, now, |block| {
            block.slots = slots.max(1);
            block.credit = 0;
            block.result_credit = 0;
            block.result_window = 1;
            if !ending {
                block.phase = Phase::Up;
                block.draining = block.ending.is_some();
                block.failure = None;
                block.idle_since = now;
            }
        });
        self.timers.clear(Timer::WorkerGrace(id));
        if !ending {
            self.timers.clear(Timer::BlockTimeout(id));
            self.timers.clear(Timer::StartBackOff);
            if let Some(started) = started {
                self.pace.came_up(now.since(started));
            }
            if self.scaler.came_up(started.map(|_| id)) {
                self.event(Event::CircuitClosed);
            }
        }
        known && phase != Some(Phase::Starting)
    }

    /// Enters a block that was not known. Results of its worker may be in hand all the same.
    pub(crate) fn found_block(&mut self, id: BlockId, phase: Phase) {
        let mut block = Block::new(phase, self.now);
        let holds = |state: &State| matches!(state, State::Done(done) if done.block == Some(id));
        let unsettled = self.tasks.iter().filter(|(_, task)| holds(&task.state)).count();
        block.unsettled = u32::try_from(unsettled).unwrap_or(u32::MAX);
        self.blocks.insert(id, block);
        self.scaler.reserve(id);
    }

    /// Takes in one task that a worker has; true if the task is this block's from here on.
    fn on_held_task(&mut self, worker: WorkerId, block: BlockId, held: HeldTask) -> bool {
        let (id, attempt) = (held.task, held.attempt);
        if held.state == HeldState::Settled {
            self.on_settled_elsewhere(id);
            return false;
        }
        if self.settled.contains(id) {
            if held.state == HeldState::Finished {
                self.settled_for.entry(block).or_default().push(id);
            } else {
                self.cancel_second(worker, block, held);
            }
            return false;
        }
        let begun = held.state != HeldState::Queued;
        match self.tasks.get(id).map(|task| (&task.state, task.failures)) {
            Some((State::Given(given), failures)) if given.block == block => {
                if failures != attempt {
                    self.tell(worker, ToWorker::Cancel { task: id, attempt });
                    return false;
                }
                if given.begun.is_none() && begun {
                    self.adopt(id, block, attempt, begun);
                }
                true
            }
            // Its result will come, and is not final yet: whoever is first, is.
            Some((State::Given(_) | State::Reserved { .. }, _)) if held.state == HeldState::Finished => false,
            Some((State::Done(done), _)) if held.state == HeldState::Finished => {
                if done.block != Some(block) {
                    self.event(Event::TaskRunTwice { task: id, block });
                    self.tell(worker, ToWorker::Forget { task: id, attempt });
                }
                false
            }
            Some((State::Given(_) | State::Reserved { .. } | State::Done(_), _)) => {
                self.cancel_second(worker, block, held);
                false
            }
            Some((State::Held | State::Waiting, _)) | None if self.was_begun_later(id, attempt, begun) => {
                if held.state == HeldState::Finished {
                    self.event(Event::TaskRunTwice { task: id, block });
                    self.tell(worker, ToWorker::Forget { task: id, attempt });
                } else {
                    self.cancel_second(worker, block, held);
                }
                false
            }
            // Perhaps it was given up; but nobody else has begun it since.
            Some((State::Held | State::Waiting, _)) | None => {
                self.adopt(id, block, attempt, begun);
                true
            }
        }
    }

    /// Whether another attempt than this one was begun since: its result may be the one that was published. If this one
    /// was not begun, one of the same number was begun elsewhere.
    fn was_begun_later(&self, id: TaskId, attempt: u32, begun: bool) -> bool {
        let latest = match self.tasks.get(id) {
            None => self.starts.get(&id).copied(),
            Some(task) if task.interrupted => Some(task.failures),
            Some(task) => task.failures.checked_sub(1),
        };
        latest.is_some_and(|latest| attempt < latest || !begun && attempt == latest)
    }

    fn cancel_second(&mut self, worker: WorkerId, block: BlockId, held: HeldTask) {
        if held.state == HeldState::Running {
            self.event(Event::TaskRunTwice { task: held.task, block });
        }
        self.tell(
            worker,
            ToWorker::Cancel {
                task: held.task,
                attempt: held.attempt,
            },
        );
    }

    /// A worker remembers that a task was settled, perhaps in an earlier life.
    fn on_settled_elsewhere(&mut self, id: TaskId) {
        match self.tasks.get(id).map(|task| (&task.state, task.failures)) {
            Some((State::Done(_), _)) => {}
            None => {
                self.settled.insert(id, self.now, self.now);
                self.starts.remove(&id);
            }
            Some((State::Held | State::Waiting | State::Reserved { .. }, _)) => self.settle(id),
            Some((State::Given(given), attempt)) => {
                let block = given.block;
                self.event(Event::TaskRunTwice { task: id, block });
                self.tell_block(block, ToWorker::Cancel { task: id, attempt });
                self.settle(id);
            }
        }
    }

    /// A task that a block should have had, and has not.
    fn on_forgotten(&mut self, id: TaskId, block: BlockId) {
        match self.tasks.get(id).map(|task| &task.state) {
            Some(State::Given(given)) if given.block == block => {
                if given.begun.is_some() {
                    self.system_failure(id, Cause::WorkerForgot, Some(block), None);
                } else {
                    self.requeue(id);
                }
            }
            // Its start is being written down, and it was never sent.
            Some(State::Reserved { .. } | State::Given(_) | State::Held | State::Waiting | State::Done(_)) | None => {}
        }
    }

    pub(crate) fn on_worker_lost(&mut self, worker: WorkerId) {
        let Some(id) = self.blocks.end_session(worker, self.now) else {
            return;
        };
        self.event(Event::WorkerSilent { worker, block: id });
        let given: Vec<TaskId> = self
            .blocks
            .get(id)
            .map_or_else(Vec::new, |block| block.given.iter().copied().collect());
        for task in given {
            self.forget_recall(task);
        }
        let since = self.now;
        let silent = self.blocks.change(id, since, |block| {
            if block.phase == Phase::Up {
                block.phase = Phase::Silent { since };
            }
            matches!(block.phase, Phase::Silent { .. })
        });
        let node_lost = self.blocks.get(id).is_some_and(|block| !block.counts());
        if silent == Some(true) && node_lost {
            self.on_grace_over(id);
        } else if silent == Some(true) {
            self.timers
                .set(Timer::WorkerGrace(id), since + self.settings.reconnect_grace);
        }
    }

    /// A silent worker was not back in time. It may come yet, and is then told what it need not go on with.
    pub(crate) fn on_grace_over(&mut self, id: BlockId) {
        let Some(Phase::Silent { since }) = self.blocks.get(id).map(|block| block.phase) else {
            return;
        };
        let now = self.now;
        self.blocks
            .change(id, now, |block| block.phase = Phase::GivenUp { since });
        let silent_for = now.since(since);
        let ending = self.blocks.get(id).and_then(|block| block.ending.clone());
        let tasks = self.take_tasks_of(id, |neighbours| match &ending {
            // The platform says why it is silent.
            Some(end) => Cause::BlockEnded {
                end: end.clone(),
                neighbours,
            },
            None => Cause::WorkerLost { silent_for },
        });
        self.timers.set(
            Timer::BlockTimeout(id),
            since + self.settings.silent_block_timeout.max(silent_for),
        );
        self.event(Event::WorkerGivenUp { block: id, tasks });
        self.block_answered(id);
    }

    pub(crate) fn on_worker_draining(&mut self, worker: WorkerId) {
        if let Some(block) = self.blocks.of_worker(worker)
            && !self.mutated(Mutation::DispatchToDraining)
        {
            self.blocks.change(block, self.now, |block| {
                block.draining = true;
                block.credit = 0;
            });
        }
    }
}
