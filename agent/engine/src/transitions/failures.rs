use crate::state::task::{Done, State, Step};
use crate::transitions::journal::Pending;
use crate::{BlockId, Cause, Event, Failure, JournalRecord, TaskId, ToWorker};

impl crate::Engine {
    /// The system ended a task that had begun: it is tried again, or its user is told why not. `holder` is a block whose
    /// worker still keeps what it knows of this attempt.
    pub(crate) fn system_failure(&mut self, id: TaskId, cause: Cause, block: Option<BlockId>, holder: Option<BlockId>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let attempt = task.failures;
        task.failures += 1;
        task.interrupted = false;
        let failures = task.failures;
        let has_body = task.message.as_ref().is_some_and(|message| message.body.is_some());
        // Without a message the delivery is awaited, and brings one.
        let can_run = has_body || task.message.is_none();
        if !can_run || !self.may_retry(failures) {
            self.fail(id, cause, block, holder);
            return;
        }
        self.event(Event::TaskRetried {
            task: id,
            failures,
            cause: cause.kind(),
        });
        if let Some(holder) = holder {
            self.tell_block(holder, ToWorker::Forget { task: id, attempt });
        }
        self.requeue(id);
    }

    /// Gives a task up. The failure is written down before it is published, so that no later life publishes another.
    pub(crate) fn fail(&mut self, id: TaskId, cause: Cause, block: Option<BlockId>, holder: Option<BlockId>) {
        let Some(task) = self.tasks.get(id) else { return };
        let kind = cause.kind();
        let failure = Failure {
            cause,
            block,
            attempts: task.failures,
            at: self.now,
        };
        let body = self.compose.compose(id, &failure);
        let record = JournalRecord::Result {
            task: id,
            body: body.clone(),
            at: self.now,
        };
        let entry = self.journal(record, Pending::Result(id));
        self.move_task(id, State::Done(Done::new(body, holder, Step::Recording(entry))));
        self.event(Event::TaskFailed {
            task: id,
            cause: kind,
            block,
        });
    }

    pub(crate) fn on_cancel(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let attempt = task.failures;
        match task.state {
            State::Held | State::Waiting | State::Reserved { .. } => self.fail(id, Cause::Cancelled, None, None),
            State::Given(given) => {
                self.tell_block(given.block, ToWorker::Cancel { task: id, attempt });
                self.fail(id, Cause::Cancelled, Some(given.block), None);
            }
            State::Done(_) => {}
        }
    }

    /// A block is gone, or was silent for too long: what it had begun has failed, what it had not goes to others.
    pub(crate) fn take_tasks_of(&mut self, block: BlockId, cause: impl Fn(u32) -> Cause) -> usize {
        let given: Vec<TaskId> = self
            .blocks
            .get(block)
            .map_or_else(Vec::new, |block| block.given.iter().copied().collect());
        let begun = given.iter().filter(|id| self.has_begun(**id)).count();
        let neighbours = u32::try_from(begun.saturating_sub(1)).unwrap_or(u32::MAX);
        for id in &given {
            if self.has_begun(*id) {
                self.system_failure(*id, cause(neighbours), Some(block), None);
            } else if !self.mutated(crate::mutation::Mutation::LoseUnbegun) {
                self.requeue(*id);
            }
        }
        given.len()
    }

    pub(crate) fn has_begun(&self, id: TaskId) -> bool {
        matches!(self.tasks.get(id).map(|task| &task.state), Some(State::Given(given)) if given.begun.is_some())
    }
}

impl Done {
    pub(crate) const fn new(body: bytes::Bytes, block: Option<BlockId>, step: Step) -> Self {
        Self {
            body,
            block,
            step,
            first_published: None,
            publishes: 0,
            refusals: 0,
        }
    }
}
