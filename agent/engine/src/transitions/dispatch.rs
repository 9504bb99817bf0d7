use crate::mutation::Mutation;
use crate::state::block::{Block, Phase};
use crate::state::task::{Given, State};
use crate::transitions::journal::Pending;
use crate::{BlockId, Event, Guarantee, JournalRecord, Output, TaskId, ToWorker, WorkerId};

impl crate::Engine {
    /// Moves a task to another state, and everything that follows from who owns it.
    pub(crate) fn move_task(&mut self, id: TaskId, state: State) {
        self.leave_owner(id);
        self.tasks.set_state(id, state, self.now);
        self.enter_owner(id);
    }

    /// Takes a task off the block that has it, or its result.
    pub(crate) fn leave_owner(&mut self, id: TaskId) {
        let now = self.now;
        match self.tasks.get(id).map(|task| &task.state) {
            Some(&State::Given(given)) => {
                self.blocks.change(given.block, now, |block| {
                    block.given.remove(&id);
                    block.recalled -= u32::from(given.recalled);
                });
            }
            Some(&State::Reserved { block, worker, .. }) => {
                self.blocks.change(block, now, |block| {
                    block.given.remove(&id);
                    // Its credit was not used, unless that was another session's.
                    block.credit += u32::from(block.worker == Some(worker) && !block.draining);
                });
            }
            Some(State::Done(done)) => {
                if let Some(block) = done.block {
                    self.blocks
                        .change(block, now, |block| block.unsettled = block.unsettled.saturating_sub(1));
                }
            }
            Some(State::Held | State::Waiting) | None => {}
        }
    }

    fn enter_owner(&mut self, id: TaskId) {
        let now = self.now;
        match self.tasks.get(id).map(|task| &task.state) {
            Some(&State::Given(Given { block, .. }) | &State::Reserved { block, .. }) => {
                self.blocks.change(block, now, |block| block.given.insert(id));
            }
            Some(State::Done(done)) => {
                if let Some(block) = done.block {
                    self.blocks.change(block, now, |block| block.unsettled += 1);
                }
            }
            Some(State::Held | State::Waiting) | None => {}
        }
    }

    /// Gives waiting tasks to workers as far as they ask for them.
    pub(crate) fn dispatch(&mut self) {
        if !self.holds_queue || self.ending.is_some() {
            return;
        }
        while let Some(id) = self.tasks.first_waiting() {
            let Some(block) = self.choose_block() else { return };
            self.blocks
                .change(block, self.now, |block| block.credit = block.credit.saturating_sub(1));
            match self.settings.guarantee {
                Guarantee::AtLeastOnce => self.send(id, block),
                Guarantee::AtMostOnce => {
                    let attempt = self.tasks.get(id).map_or(0, |task| task.failures);
                    let record = JournalRecord::Started {
                        task: id,
                        attempt,
                        block,
                        at: self.now,
                    };
                    let entry = self.journal(record, Pending::Reserved(id));
                    let Some(worker) = self.blocks.get(block).and_then(|block| block.worker) else {
                        return;
                    };
                    self.use_credit(block);
                    self.move_task(id, State::Reserved { block, worker, entry });
                }
            }
        }
    }

    fn use_credit(&mut self, block: BlockId) {
        self.blocks
            .change(block, self.now, |block| block.credit = block.credit.saturating_sub(1));
    }

    fn choose_block(&self) -> Option<BlockId> {
        if self.mutated(Mutation::IgnoreCredit) {
            let up = |block: &Block| block.phase == Phase::Up && !block.draining && block.worker.is_some();
            return self
                .blocks
                .iter()
                .find(|(_, block)| up(block) && block.given.len() < 64)
                .map(|(id, _)| id);
        }
        let preference = self.blocks.preferred()?;
        // What may begin only once never waits behind another task, for it could not be had back.
        let may_queue = self.settings.guarantee == Guarantee::AtLeastOnce;
        (may_queue || !preference.queues).then_some(preference.block)
    }

    /// Sends a task whose start stands in the journal, if the worker that asked for it is still there to take it, and the
    /// queue is still ours.
    pub(crate) fn send_reserved(&mut self, id: TaskId, id_of_block: BlockId, worker: WorkerId) {
        let block = self.blocks.get(id_of_block);
        if !self.holds_queue
            || !block.is_some_and(|block| block.phase == Phase::Up && !block.draining && block.worker == Some(worker))
        {
            self.requeue(id);
            return;
        }
        self.send(id, id_of_block);
        // From here on it may have begun, whatever is heard of it. Its body stays until it has: the worker may refuse it.
        let now = self.now;
        if let Some(given) = self.tasks.given_mut(id) {
            given.begun = Some((None, now));
        }
    }

    fn send(&mut self, id: TaskId, block: BlockId) {
        let Some(worker) = self.blocks.get(block).and_then(|block| block.worker) else {
            return;
        };
        let Some(task) = self.tasks.get(id) else { return };
        let Some(message) = task.message.clone() else { return };
        let Some(body) = message.body else { return };
        let (attempt, waited) = (task.failures, self.now.since(task.since));
        self.move_task(
            id,
            State::Given(Given {
                block,
                begun: None,
                recalled: false,
            }),
        );
        let run = ToWorker::Run {
            task: id,
            function: message.function,
            attempt,
            resource_specification: message.resource_specification,
            result_serializers: message.result_serializers,
            body,
        };
        self.tell(worker, run);
        self.event(Event::TaskDispatched {
            task: id,
            worker,
            block,
            attempt,
            waited,
        });
    }

    pub(crate) fn tell(&mut self, worker: WorkerId, message: ToWorker) {
        self.outputs.push_back(Output::Send { worker, message });
    }

    /// Says something to a block's worker, if its link is up.
    pub(crate) fn tell_block(&mut self, block: BlockId, message: ToWorker) {
        if let Some(worker) = self.blocks.get(block).and_then(|block| block.worker) {
            self.tell(worker, message);
        }
    }

    /// Puts a task that was not begun back into the queue; if its delivery is awaited, the broker brings it again.
    pub(crate) fn requeue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let has_body = task.message.as_ref().is_some_and(|message| message.body.is_some());
        if has_body && (task.delivery.is_some() || task.journalled) && self.ending.is_none() {
            self.move_task(id, State::Waiting);
        } else {
            self.give_back(id);
        }
    }

    /// Gives a task that was not begun back to the broker. One that stands in the journal is the next life's.
    pub(crate) fn give_back(&mut self, id: TaskId) {
        let Some(task) = self.let_go(id) else { return };
        for tag in task.delivery.into_iter().chain(task.duplicates) {
            if self.ledger.give_back(tag) {
                self.outputs.push_back(Output::GiveBack { tag });
                self.event(Event::TaskGivenBack { task: id });
            }
        }
    }

    /// Asks back tasks that wait behind others in a worker while slots are idle elsewhere.
    pub(crate) fn recall(&mut self) {
        if !self.holds_queue || self.ending.is_some() || self.tasks.waiting_count() > 0 {
            return;
        }
        while self.blocks.recalled() < self.blocks.idle_slots() {
            let Some(block) = self.blocks.most_crowded() else {
                return;
            };
            let newest = self
                .blocks
                .get(block)
                .into_iter()
                .flat_map(|block| &block.given)
                .filter_map(|id| {
                    let task = self.tasks.get(*id)?;
                    task.may_be_recalled().then_some((task.sequence, *id))
                });
            let Some((_, id)) = newest.max() else { return };
            self.recall_one(id, block);
        }
    }

    pub(crate) fn recall_one(&mut self, id: TaskId, block: BlockId) {
        let Some(worker) = self.blocks.get(block).and_then(|block| block.worker) else {
            return;
        };
        let attempt = self.tasks.get(id).map_or(0, |task| task.failures);
        if let Some(given) = self.tasks.given_mut(id) {
            given.recalled = true;
        }
        self.blocks.change(block, self.now, |block| block.recalled += 1);
        self.tell(worker, ToWorker::Recall { task: id, attempt });
        self.event(Event::TaskRecalled { task: id, worker });
    }

    /// A task that was asked back was begun or is gone: no answer is awaited any more.
    pub(crate) fn forget_recall(&mut self, id: TaskId) {
        if let Some(given) = self.tasks.given_mut(id)
            && given.recalled
        {
            given.recalled = false;
            let block = given.block;
            self.blocks.change(block, self.now, |block| block.recalled -= 1);
        }
    }
}
