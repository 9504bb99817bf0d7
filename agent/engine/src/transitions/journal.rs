use crate::state::task::{State, Step};
use crate::{Acknowledge, Cause, Engine, EntryId, Event, JournalRecord, Output, TaskId};

/// What waits for a record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Nothing: it is only for the next life.
    Nothing,
    /// The acknowledgement, before there is a result.
    Accepted(TaskId),
    /// The sending of a task (at-most-once).
    Reserved(TaskId),
    /// The publishing of a result, or the end of a life that can not publish it.
    Result(TaskId),
    /// The acknowledgement, and the worker's leave to forget.
    Settled(TaskId),
}

impl Engine {
    pub(crate) fn journal(&mut self, record: JournalRecord, pending: Pending) -> EntryId {
        self.next_entry += 1;
        let entry = EntryId(self.next_entry);
        self.entries.push_back((entry, pending));
        self.outputs.push_back(Output::Journal { entry, record });
        entry
    }

    pub(crate) fn on_journalled(&mut self, through: EntryId, written: bool) {
        let mut entries = 0;
        while let Some(&(entry, pending)) = self.entries.front()
            && entry <= through
        {
            self.entries.pop_front();
            entries += 1;
            match pending {
                Pending::Nothing => {}
                Pending::Accepted(task) => self.on_accepted_journalled(task, written),
                Pending::Reserved(task) => self.on_reserved_journalled(task, entry, written),
                Pending::Result(task) => {
                    if self.step(task) == Some(Step::Recording(entry)) {
                        self.on_result_journalled(task, written);
                    }
                }
                // Without a journal the memory of this process has to do.
                Pending::Settled(task) => {
                    if self.step(task) == Some(Step::Settling(entry)) {
                        self.settle(task);
                    }
                }
            }
        }
        if !written && entries > 0 {
            self.event(Event::JournalFailed { entries });
        }
    }

    /// How far a task's result is, if it has one.
    pub(crate) fn step(&self, task: TaskId) -> Option<Step> {
        match &self.tasks.get(task)?.state {
            State::Done(done) => Some(done.step),
            State::Held | State::Waiting | State::Reserved { .. } | State::Given(_) => None,
        }
    }

    /// The task stands in the journal: from here on it needs no delivery. If it does not, the broker keeps it.
    fn on_accepted_journalled(&mut self, id: TaskId, written: bool) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if written {
            task.journalled = true;
            let tags = task
                .delivery
                .take()
                .into_iter()
                .chain(std::mem::take(&mut task.duplicates));
            for tag in tags {
                self.ledger.settle(tag);
            }
        } else if let Some(tag) = task.delivery {
            self.ledger.set_in_journal(tag, false);
            if self.settings.acknowledge == Acknowledge::AfterResult {
                // It was written because the broker would not wait; so the broker must bring it again.
                if self.tasks.get(id).is_some_and(crate::state::task::Task::is_waiting) {
                    self.give_back(id);
                } else {
                    self.refresh(id, tag);
                }
            }
        }
    }

    fn on_reserved_journalled(&mut self, id: TaskId, entry: EntryId, written: bool) {
        let Some(task) = self.tasks.get(id) else { return };
        let State::Reserved {
            block,
            worker,
            entry: reserved,
        } = task.state
        else {
            return;
        };
        if reserved != entry {
            return;
        }
        if written {
            self.send_reserved(id, block, worker);
        } else {
            // It may have begun at most once only if that can be remembered.
            self.fail(id, Cause::JournalFailed, None, None);
        }
    }
}
