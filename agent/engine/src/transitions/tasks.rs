use bytes::Bytes;

use crate::state::task::{Done, Given, State, Step};
use crate::transitions::journal::Pending;
use crate::{
    BlockEnd, BlockId, Cause, Event, ExecutorEnd, ExecutorExit, Guarantee, JournalRecord, RefusalReason, Slot, TaskId,
    TaskOutcome, ToWorker, WorkerId,
};

impl crate::Engine {
    /// Whether a block has this attempt of a task.
    fn has(&self, block: BlockId, id: TaskId, attempt: u32) -> bool {
        self.tasks.get(id).is_some_and(|task| {
            task.failures == attempt && matches!(&task.state, State::Given(given) if given.block == block)
        })
    }

    pub(crate) fn on_task_started(&mut self, worker: WorkerId, id: TaskId, attempt: u32, slot: Slot) {
        let Some(block) = self.blocks.of_worker(worker) else {
            return;
        };
        if !self.has(block, id, attempt) {
            self.event(Event::TaskRunTwice { task: id, block });
            self.tell(worker, ToWorker::Cancel { task: id, attempt });
            return;
        }
        self.forget_recall(id);
        let now = self.now;
        if let Some(given) = self.tasks.given_mut(id) {
            given.begun = Some((Some(slot), now));
        }
        if self.settings.guarantee == Guarantee::AtLeastOnce {
            let record = JournalRecord::Started {
                task: id,
                attempt,
                block,
                at: now,
            };
            self.journal(record, Pending::Nothing);
        }
        self.drop_needless_body(id);
        self.event(Event::TaskStarted { task: id, block, slot });
    }

    pub(crate) fn on_task_finished(
        &mut self,
        worker: WorkerId,
        id: TaskId,
        attempt: u32,
        outcome: TaskOutcome,
        body: Bytes,
    ) {
        let Some(block) = self.blocks.of_worker(worker) else {
            return;
        };
        self.count_result(block, body.len());
        if self.settled.contains(id) {
            self.settled_for.entry(block).or_default().push(id);
            return;
        }
        let before = match self.tasks.get(id).map(|task| &task.state) {
            Some(State::Done(done)) => {
                // The first result is final. One from the same worker is the same one, sent again after it redialled.
                if done.block != Some(block) {
                    self.event(Event::TaskRunTwice { task: id, block });
                    self.tell(worker, ToWorker::Forget { task: id, attempt });
                }
                return;
            }
            Some(State::Given(given)) => Some(*given),
            Some(State::Held | State::Waiting | State::Reserved { .. }) => None,
            None => {
                let task = self.new_task(attempt);
                self.tasks.insert(id, task);
                self.starts.remove(&id);
                None
            }
        };
        let mut ran = None;
        if let Some(given) = before {
            if given.block == block {
                ran = given.begun.map(|(_, at)| self.now.since(at));
            } else {
                self.event(Event::TaskRunTwice { task: id, block });
                let attempt = self.tasks.get(id).map_or(0, |task| task.failures);
                self.tell_block(given.block, ToWorker::Cancel { task: id, attempt });
            }
        }
        self.event(Event::TaskFinished {
            task: id,
            block,
            outcome,
            bytes: body.len(),
            ran,
        });
        self.move_task(id, State::Done(Done::new(body, Some(block), Step::Due)));
        if self
            .blocks
            .change(block, self.now, |block| block.proven = true)
            .is_some()
        {
            self.pace.ended(self.now);
            self.scaler.proven(block);
        }
    }

    pub(crate) fn on_task_died(&mut self, worker: WorkerId, id: TaskId, attempt: u32, end: ExecutorEnd) {
        let Some(block) = self.blocks.of_worker(worker) else {
            return;
        };
        if self.has(block, id, attempt) {
            let cause = self.cause_of_death(block, end);
            self.system_failure(id, cause, Some(block), Some(block));
        } else if self.settled.contains(id) {
            self.settled_for.entry(block).or_default().push(id);
        } else if !self.is_result_of(block, id) {
            self.tell(worker, ToWorker::Forget { task: id, attempt });
        }
    }

    /// What ended a task whose executor ended: if its worker had to, the platform says why.
    fn cause_of_death(&self, id: BlockId, end: ExecutorEnd) -> Cause {
        let block = self.blocks.get(id).filter(|_| end.how == ExecutorExit::GraceOver);
        match block.and_then(|block| Some((block, block.ending.clone()?))) {
            Some((block, ending)) => {
                let begun = block.given.iter().filter(|id| self.has_begun(**id)).count();
                Cause::BlockEnded {
                    end: BlockEnd {
                        output: end.output,
                        ..ending
                    },
                    neighbours: u32::try_from(begun.saturating_sub(1)).unwrap_or(u32::MAX),
                }
            }
            None => Cause::ExecutorDied(end),
        }
    }

    fn is_result_of(&self, block: BlockId, id: TaskId) -> bool {
        matches!(self.tasks.get(id).map(|task| &task.state), Some(State::Done(done)) if done.block == Some(block))
    }

    pub(crate) fn on_task_refused(&mut self, worker: WorkerId, id: TaskId, attempt: u32, reason: RefusalReason) {
        let Some(block) = self.blocks.of_worker(worker) else {
            return;
        };
        if !self.has(block, id, attempt) {
            return;
        }
        match reason {
            RefusalReason::Draining => {
                self.on_worker_draining(worker);
                self.requeue(id);
            }
            RefusalReason::Recalled | RefusalReason::NoCredit => self.requeue(id),
            RefusalReason::Duplicate => {
                let why = "its worker says that it has the task already".to_owned();
                self.system_failure(id, Cause::Refused { reason: why }, Some(block), None);
            }
            RefusalReason::Impossible { why } => self.fail(id, Cause::Refused { reason: why }, Some(block), None),
        }
    }

    pub(crate) fn on_credit(&mut self, worker: WorkerId, tasks: u32) {
        if self.mutated(crate::mutation::Mutation::LoseCredit) && tasks == 1 {
            return;
        }
        if let Some(block) = self.blocks.of_worker(worker) {
            self.blocks.change(block, self.now, |block| {
                block.credit = block.credit.saturating_add(tasks)
            });
        }
    }

    /// A task that a worker has from an earlier session, or from an earlier life.
    pub(crate) fn adopt(&mut self, id: TaskId, block: BlockId, attempt: u32, begun: bool) {
        if self.tasks.get(id).is_none() {
            let task = self.new_task(attempt);
            self.tasks.insert(id, task);
            self.starts.remove(&id);
            self.event(Event::TaskAdopted { task: id, block });
        }
        if let Some(task) = self.tasks.get_mut(id) {
            // If this attempt was given up, that is taken back.
            task.failures = attempt;
            task.interrupted = false;
        }
        let begun = begun.then_some((None, self.now));
        self.move_task(
            id,
            State::Given(Given {
                block,
                begun,
                recalled: false,
            }),
        );
        self.drop_needless_body(id);
    }
}
