use std::collections::BTreeSet;

use crate::mutation::Mutation;
use crate::state::block::Phase;
use crate::state::task::{Done, Message, State, Step};
use crate::state::timers::Timer;
use crate::{BlockId, Cause, Event, JournalRecord, TaskId};

/// How far a new life has come in finding out what the one before left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Which blocks exist is not known.
    Unlisted,
    /// These have neither said hello, nor ended, nor been silent for too long.
    Waiting(BTreeSet<BlockId>),
    /// All are accounted for.
    Over,
}

impl crate::Engine {
    pub(crate) fn restore_records(&mut self, records: impl IntoIterator<Item = JournalRecord>) {
        for record in records {
            match record {
                JournalRecord::Started { task, attempt, .. } => {
                    self.remember_start(task, attempt);
                }
                JournalRecord::Settled { task, .. } => {
                    // Its hour begins anew: while the process was away, the broker kept what was not acknowledged.
                    self.settled.insert(task, self.now, self.now);
                    self.starts.remove(&task);
                    self.tasks.remove(task);
                }
                JournalRecord::Accepted { task: accepted, .. } => {
                    let message = Message {
                        function: accepted.function,
                        resource_specification: accepted.resource_specification,
                        result_serializers: accepted.result_serializers,
                        body: accepted.body,
                    };
                    self.restore_task(accepted.task);
                    if let Some(task) = self.tasks.get_mut(accepted.task) {
                        task.journalled = true;
                    }
                    self.tasks.set_message(accepted.task, Some(message));
                }
                JournalRecord::Result { .. } if self.mutated(Mutation::ForgetResults) => {}
                JournalRecord::Result { task, body, .. } => {
                    self.restore_task(task);
                    self.starts.remove(&task);
                    // The first is final: a worker that redialled may have sent the same once more.
                    if self.step(task).is_none() {
                        self.move_task(task, State::Done(Done::new(body, None, Step::Due)));
                    }
                }
            }
        }
        for id in self.tasks.all_held() {
            let begun = self.starts.remove(&id);
            if let Some(task) = self.tasks.get_mut(id) {
                task.interrupted = begun.is_some();
                task.failures = begun.unwrap_or(0);
            }
        }
    }

    fn restore_task(&mut self, id: TaskId) {
        if self.tasks.get(id).is_none() && !self.settled.contains(id) {
            let task = self.new_task(0);
            self.tasks.insert(id, task);
        }
    }

    /// Whether redelivered tasks must wait: somebody may be running them.
    pub(crate) fn restart_waits(&self) -> bool {
        self.restart != Restart::Over
    }

    pub(crate) fn on_blocks_listed(&mut self, blocks: &[BlockId]) {
        if self.is_fenced() {
            return;
        }
        let now = self.now;
        let mut missing = BTreeSet::new();
        for &id in blocks {
            self.scaler.reserve(id);
            if self.blocks.get(id).is_none() {
                self.found_block(id, Phase::Silent { since: now });
                missing.insert(id);
            }
        }
        if self.restart != Restart::Unlisted {
            self.begin_grace(missing);
            return;
        }
        let none = missing.is_empty();
        self.restart = Restart::Waiting(missing);
        if none {
            self.end_restart();
        } else if self.holds_queue {
            self.begin_restart_grace();
        }
    }

    /// What was listed shall say hello within the grace from now on, for now the queue is held: until then another agent
    /// may have held it, whose workers they were.
    pub(crate) fn begin_restart_grace(&mut self) {
        let Restart::Waiting(missing) = &self.restart else {
            return;
        };
        if self.timers.is_set(Timer::RestartGrace) {
            return;
        }
        let missing = missing.clone();
        self.timers
            .set(Timer::RestartGrace, self.now + self.settings.reconnect_grace);
        self.begin_grace(missing);
    }

    fn begin_grace(&mut self, missing: BTreeSet<BlockId>) {
        let since = self.now;
        for id in missing {
            self.blocks.change(id, since, |block| {
                if matches!(block.phase, Phase::Silent { .. }) {
                    block.phase = Phase::Silent { since };
                }
            });
            self.timers
                .set(Timer::WorkerGrace(id), since + self.settings.reconnect_grace);
        }
    }

    /// A block that was listed said hello, is gone, or was silent for too long.
    pub(crate) fn block_answered(&mut self, id: BlockId) {
        if let Restart::Waiting(missing) = &mut self.restart
            && missing.remove(&id)
            && missing.is_empty()
        {
            self.end_restart();
        }
    }

    /// Whoever could have had a redelivered task has said so by now.
    pub(crate) fn end_restart(&mut self) {
        let Restart::Waiting(missing) = &self.restart else {
            return;
        };
        let missing = missing.len();
        self.restart = Restart::Over;
        self.timers.clear(Timer::RestartGrace);
        let held = self.tasks.all_held();
        self.event(Event::RestartSettled {
            missing,
            tasks: held.len(),
        });
        for id in held {
            self.release(id);
        }
    }

    /// Nobody has this task. If it was begun, that is one failure of the system.
    pub(crate) fn release(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if std::mem::take(&mut task.interrupted) {
            self.system_failure(id, Cause::Interrupted, None, None);
        } else {
            self.requeue(id);
        }
    }
}
