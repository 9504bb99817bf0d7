use std::time::Duration;

use crate::mutation::Mutation;
use crate::scaling;
use crate::state::block::Phase;
use crate::state::timers::Timer;
use crate::{BlockEnd, BlockEndKind, BlockId, BlockState, Cause, Event, Output, StartOutcome};

/// A block that stood for so long has proved that it can.
const PROVEN_AFTER: Duration = Duration::from_secs(60);
/// How often a deletion is asked for that was taken, but after which the block is still there: a little longer than a
/// pod's usual grace.
const DELETE_PERIOD: Duration = Duration::from_secs(90);
/// First and longest pause after a deletion that was not taken.
const DELETE_BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl crate::Engine {
    /// Asks for a block's end; if somebody else may hold the queue, not before it is ours again.
    pub(crate) fn delete_block(&mut self, id: BlockId) {
        if self.blocks.get(id).is_none() {
            return;
        }
        self.blocks.change(id, self.now, |block| {
            block.phase = Phase::Deleting;
            block.deletions = block.deletions.saturating_add(1);
        });
        self.timers.clear(Timer::WorkerGrace(id));
        self.timers.clear(Timer::DeleteAgain(id));
        if self.may_act() || self.mutated(Mutation::ActWithoutQueue) {
            self.blocks.change(id, self.now, |block| block.is_doomed = true);
            self.timers.set(Timer::BlockTimeout(id), self.now + DELETE_PERIOD);
            self.outputs.push_back(Output::DeleteBlock { block: id });
            self.event(Event::BlockDeleting { block: id });
        } else {
            self.timers.clear(Timer::BlockTimeout(id));
        }
    }

    /// Asks anew for the end of every block that should be gone.
    pub(crate) fn delete_postponed(&mut self) {
        for id in self.blocks.ids() {
            let deleting = self.blocks.get(id).is_some_and(|block| block.phase == Phase::Deleting);
            if deleting && !self.timers.is_set(Timer::BlockTimeout(id)) && !self.timers.is_set(Timer::DeleteAgain(id)) {
                self.delete_block(id);
            }
        }
    }

    pub(crate) fn on_block_deleted(&mut self, id: BlockId, done: bool) {
        let Some(deletions) = self.blocks.get(id).map(|block| block.deletions) else {
            return;
        };
        if !done && !self.mutated(Mutation::TrustDeletion) {
            let (min, max) = DELETE_BACK_OFF;
            let pause = self.random.back_off(deletions.saturating_sub(1), min, max);
            self.timers.set(Timer::DeleteAgain(id), self.now + pause);
        }
    }

    pub(crate) fn on_block_started(&mut self, id: BlockId, outcome: StartOutcome) {
        match outcome {
            // It may or may not exist: its worker says so, or the time for that passes.
            StartOutcome::Started | StartOutcome::Unknown => {}
            StartOutcome::Failed(end) => {
                let gone = self.blocks.get(id).is_some_and(|block| match block.phase {
                    Phase::Starting => true,
                    Phase::Deleting => block.worker.is_none(),
                    Phase::Up | Phase::Silent { .. } | Phase::GivenUp { .. } | Phase::Draining => false,
                });
                if gone {
                    self.on_block_ended(id, end);
                }
            }
        }
    }

    pub(crate) fn on_block_observed(&mut self, id: BlockId, state: BlockState) {
        if self.is_fenced() {
            return;
        }
        match state {
            BlockState::Pending { why } => self.on_block_pending(id, why),
            BlockState::Running => self.on_block_running(id),
            BlockState::Ending(end) => self.on_block_ending(id, end),
            BlockState::Ended(end) => self.on_block_ended(id, end),
        }
    }

    fn on_block_ended(&mut self, id: BlockId, end: BlockEnd) {
        let Some(block) = self.blocks.get(id) else { return };
        let proven = block.proven || self.now.since(block.since) >= PROVEN_AFTER && block.phase != Phase::Starting;
        let given_up = block.failure.is_some();
        let failed = given_up || scaling::is_start_failure(block.phase, proven);
        let asked = matches!(block.phase, Phase::Draining | Phase::Deleting);
        let expected = !given_up && (asked || block.draining && end.kind == BlockEndKind::Completed);
        // What it was given up for, and its last words.
        let end = match block.failure.clone() {
            Some(failure) => BlockEnd {
                exit: end.exit,
                output: end.output,
                ..failure
            },
            None => end,
        };
        let tasks = self.take_tasks_of(id, |neighbours| Cause::BlockEnded {
            end: end.clone(),
            neighbours,
        });
        self.forget_block(id);
        self.event(Event::BlockEnded {
            block: id,
            end: end.clone(),
            tasks,
            expected,
        });
        if failed {
            self.start_failed(id, end);
        } else if proven {
            self.scaler.proven(id);
        }
        self.block_answered(id);
    }

    pub(crate) fn forget_block(&mut self, id: BlockId) {
        self.blocks.remove(id);
        for timer in [Timer::WorkerGrace(id), Timer::BlockTimeout(id), Timer::DeleteAgain(id)] {
            self.timers.clear(timer);
        }
    }

    pub(crate) fn on_block_timeout(&mut self, id: BlockId) {
        match self.blocks.get(id).map(|block| block.phase) {
            Some(Phase::Starting) => self.on_launch_due(id),
            Some(Phase::GivenUp { .. } | Phase::Draining) => self.delete_block(id),
            Some(Phase::Deleting) => {
                // Its last words have been waited for long enough.
                let words = self.blocks.change(id, self.now, |block| block.failure.take());
                if let Some(end) = words.flatten() {
                    self.start_failed(id, end);
                }
                if !self.mutated(Mutation::TrustDeletion) {
                    self.delete_block(id);
                }
            }
            Some(Phase::Up | Phase::Silent { .. }) | None => {}
        }
    }
}
