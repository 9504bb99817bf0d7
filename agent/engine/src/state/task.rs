use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::state::map::TaskMap;
use crate::{BlockId, DeliveryTag, EntryId, FunctionId, PublishId, Slot, TaskId, Time, WorkerId};

/// One task that is in hand.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its place in the queue, kept when it comes back to it.
    pub(crate) sequence: u64,
    /// When it came, or was found with a worker.
    pub(crate) accepted: Time,
    /// Since when it is in its present state.
    pub(crate) since: Time,
    /// What came from the broker; `None` if it was found with a worker and its delivery is awaited.
    pub(crate) message: Option<Message>,
    /// The delivery to acknowledge in the end.
    pub(crate) delivery: Option<DeliveryTag>,
    /// Further deliveries of it on the same channel: the service may publish a task twice.
    pub(crate) duplicates: Vec<DeliveryTag>,
    /// It stands in the journal, so that it needs no delivery any more.
    pub(crate) journalled: bool,
    /// How often the system ended it: the number of its attempt.
    pub(crate) failures: u32,
    /// It was begun in an earlier life, and nobody has been found who still has it.
    pub(crate) interrupted: bool,
    pub(crate) state: State,
}

/// What a delivery carries. The body is dropped as soon as nobody can need it again.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) function: FunctionId,
    pub(crate) resource_specification: Option<Arc<str>>,
    pub(crate) result_serializers: Option<Arc<[String]>>,
    pub(crate) body: Option<Bytes>,
}

/// The one place that owns a task.
#[derive(Debug)]
pub(crate) enum State {
    /// The queue, but not before the blocks that were found at the start are accounted for.
    Held,
    /// The queue.
    Waiting,
    /// A block, once its start stands in the journal (at-most-once only).
    Reserved {
        block: BlockId,
        worker: WorkerId,
        entry: EntryId,
    },
    /// A block.
    Given(Given),
    /// Nobody needs to run it any more: this is its result.
    Done(Done),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub(crate) block: BlockId,
    /// Set once an executor has begun it; the slot is not known if a hello said so.
    pub(crate) begun: Option<(Option<Slot>, Time)>,
    /// It was asked back.
    pub(crate) recalled: bool,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) body: Bytes,
    /// The block whose worker holds this result, too.
    pub(crate) block: Option<BlockId>,
    pub(crate) step: Step,
    pub(crate) first_published: Option<Time>,
    pub(crate) publishes: u32,
    /// How often in a row the broker refused it.
    pub(crate) refusals: u32,
}

/// How far a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is being written into the journal.
    Recording(EntryId),
    /// To be published as soon as there is a channel for it.
    Due,
    /// Published, without an outcome so far.
    Published(PublishId),
    /// Refused; a timer runs.
    Paused,
    /// Confirmed, and being written into the journal.
    Settling(EntryId),
}

impl Task {
    pub(crate) fn body_len(&self) -> u64 {
        self.message
            .as_ref()
            .and_then(|message| message.body.as_ref())
            .map_or(0, |body| body.len() as u64)
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.state, State::Given(Given { begun: Some(_), .. }))
    }

    /// A block has it, has not reported it begun, and was not asked for it.
    pub(crate) const fn may_be_recalled(&self) -> bool {
        matches!(
            self.state,
            State::Given(Given {
                begun: None,
                recalled: false,
                ..
            })
        )
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Held | State::Waiting)
    }

    /// The block that has it, begun or not.
    pub(crate) const fn block(&self) -> Option<BlockId> {
        match self.state {
            State::Reserved { block, .. } => Some(block),
            State::Given(given) => Some(given.block),
            State::Held | State::Waiting | State::Done(_) => None,
        }
    }
}

/// All tasks in hand, with the indexes and sums that follow from their states. Only [`Tasks::set_state`],
/// [`Tasks::insert`] and [`Tasks::remove`] change a state, so that the indexes cannot disagree.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: TaskMap<Task>,
    index: Index,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    waiting: BTreeMap<u64, TaskId>,
    held: BTreeSet<TaskId>,
    due: BTreeMap<u64, TaskId>,
    given: usize,
    done: usize,
    task_bytes: u64,
    result_bytes: u64,
    without_body: usize,
}

impl Tasks {
    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        self.table.get(id)
    }

    /// For everything but the state and the body.
    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.table.get_mut(id)
    }

    pub(crate) fn insert(&mut self, id: TaskId, task: Task) {
        self.index.enter(id, &task);
        self.table.insert(id, task);
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.table.remove(id)?;
        self.index.leave(id, &task);
        Some(task)
    }

    /// Moves a task to another state; gives the one it had.
    pub(crate) fn set_state(&mut self, id: TaskId, state: State, now: Time) -> Option<State> {
        let task = self.table.get_mut(id)?;
        self.index.leave(id, task);
        let before = std::mem::replace(&mut task.state, state);
        task.since = now;
        if matches!(task.state, State::Done(_))
            && let Some(message) = &mut task.message
        {
            message.body = None;
        }
        self.index.enter(id, task);
        Some(before)
    }

    /// Changes what is in a state without changing which state it is.
    pub(crate) fn given_mut(&mut self, id: TaskId) -> Option<&mut Given> {
        match self.table.get_mut(id).map(|task| &mut task.state) {
            Some(State::Given(given)) => Some(given),
            Some(State::Held | State::Waiting | State::Reserved { .. } | State::Done(_)) | None => None,
        }
    }

    /// A result, to change everything but its body and step.
    pub(crate) fn done_mut(&mut self, id: TaskId) -> Option<&mut Done> {
        match self.table.get_mut(id).map(|task| &mut task.state) {
            Some(State::Done(done)) => Some(done),
            Some(State::Held | State::Waiting | State::Reserved { .. } | State::Given(_)) | None => None,
        }
    }

    /// Moves a result to its next step.
    pub(crate) fn set_step(&mut self, id: TaskId, step: Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let State::Done(done) = &mut task.state else { return };
        if done.step == Step::Due {
            self.index.due.remove(&task.sequence);
        }
        done.step = step;
        if step == Step::Due {
            self.index.due.insert(task.sequence, id);
        }
    }

    /// Sets or drops the message.
    pub(crate) fn set_message(&mut self, id: TaskId, message: Option<Message>) {
        if let Some(task) = self.table.get_mut(id) {
            self.index.leave(id, task);
            task.message = message;
            self.index.enter(id, task);
        }
    }

    pub(crate) fn drop_body(&mut self, id: TaskId) {
        if let Some(task) = self.table.get_mut(id)
            && let Some(message) = &mut task.message
            && let Some(body) = message.body.take()
        {
            self.index.task_bytes -= body.len() as u64;
            self.index.without_body += 1;
        }
    }

    pub(crate) fn first_waiting(&self) -> Option<TaskId> {
        self.index.waiting.first_key_value().map(|(_, id)| *id)
    }

    /// The waiting ones, newest first.
    pub(crate) fn newest_waiting(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.index.waiting.values().rev().copied()
    }

    pub(crate) fn all_waiting(&self) -> Vec<TaskId> {
        self.index.waiting.values().copied().collect()
    }

    pub(crate) fn all_held(&self) -> Vec<TaskId> {
        self.index.held.iter().copied().collect()
    }

    pub(crate) fn first_due(&self) -> Option<TaskId> {
        self.index.due.first_key_value().map(|(_, id)| *id)
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.index.waiting.len()
    }

    pub(crate) fn held_count(&self) -> usize {
        self.index.held.len()
    }

    pub(crate) const fn given_count(&self) -> usize {
        self.index.given
    }

    pub(crate) const fn done_count(&self) -> usize {
        self.index.done
    }

    /// Tasks that want, or have, a slot.
    pub(crate) fn outstanding(&self) -> usize {
        self.index.waiting.len() + self.index.held.len() + self.index.given
    }

    pub(crate) const fn result_bytes(&self) -> u64 {
        self.index.result_bytes
    }

    pub(crate) const fn held_bytes(&self) -> u64 {
        self.index.task_bytes + self.index.result_bytes
    }

    /// How many tasks are in hand whose body is not.
    pub(crate) const fn without_body(&self) -> usize {
        self.index.without_body
    }

    /// All of them, in the order of their ids. Sorts: not for what happens with every task.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> + '_ {
        self.table.sorted()
    }

    /// Whether the indexes and sums are what the table says.
    pub(crate) fn agree(&self) -> bool {
        let mut fresh = Index::default();
        for (id, task) in self.table.sorted() {
            fresh.enter(id, task);
        }
        fresh == self.index
    }
}

impl Index {
    fn enter(&mut self, id: TaskId, task: &Task) {
        self.count(id, task, true);
    }

    fn leave(&mut self, id: TaskId, task: &Task) {
        self.count(id, task, false);
    }

    fn count(&mut self, id: TaskId, task: &Task, enter: bool) {
        let change = |count: &mut usize| if enter { *count += 1 } else { *count -= 1 };
        let change_bytes = |sum: &mut u64, bytes: u64| if enter { *sum += bytes } else { *sum -= bytes };
        match &task.state {
            State::Held if enter => {
                self.held.insert(id);
            }
            State::Held => {
                self.held.remove(&id);
            }
            State::Waiting if enter => {
                self.waiting.insert(task.sequence, id);
            }
            State::Waiting => {
                self.waiting.remove(&task.sequence);
            }
            State::Reserved { .. } | State::Given(_) => change(&mut self.given),
            State::Done(done) => {
                change(&mut self.done);
                change_bytes(&mut self.result_bytes, done.body.len() as u64);
                if done.step == Step::Due {
                    if enter {
                        self.due.insert(task.sequence, id);
                    } else {
                        self.due.remove(&task.sequence);
                    }
                }
            }
        }
        match task.message.as_ref().map(|message| message.body.as_ref()) {
            Some(Some(body)) => change_bytes(&mut self.task_bytes, body.len() as u64),
            Some(None) | None => change(&mut self.without_body),
        }
    }
}
