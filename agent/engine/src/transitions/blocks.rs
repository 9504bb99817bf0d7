use std::time::Duration;

use crate::mutation::Mutation;
use crate::scaling::{self, Census};
use crate::state::block::{Block, Phase};
use crate::state::timers::Timer;
use crate::{BlockEnd, BlockId, BlockState, Cause, Event, Output, StartOutcome};

/// A block that stood for so long has proved that it can.
const PROVEN_AFTER: Duration = Duration::from_secs(60);
/// How often a deletion is asked for that was taken, but after which the block is still there.
const DELETE_PERIOD: Duration = Duration::from_secs(60);
/// First and longest pause after a deletion that was not taken.
const DELETE_BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl crate::Engine {
    /// Starts and ends blocks as tasks come and go.
    pub(crate) fn scale(&mut self) {
        if !self.holds_queue || self.ending.is_some() {
            self.timers.clear(Timer::IdleBlock);
            return;
        }
        let outstanding = self.tasks.outstanding() as u64 + self.depth.ready();
        let wanted = scaling::wanted_blocks(&self.settings.scaling, self.settings.slots_per_block, outstanding);
        let census = Census {
            live: self.blocks.live(),
            existing: self.blocks.len(),
            starting: self.blocks.starting(),
        };
        for _ in 0..self.scaler.missing(&self.settings.scaling, wanted, census, self.now) {
            self.start_block();
        }
        if let Some(until) = self.scaler.paused_until(self.now) {
            self.timers.set(Timer::StartBackOff, until);
        }
        self.end_idle_blocks(wanted);
    }

    fn start_block(&mut self) {
        let id = self.scaler.name(self.settings.epoch);
        self.blocks.insert(id, Block::new(Phase::Starting, self.now));
        self.timers.set(
            Timer::BlockTimeout(id),
            self.now + self.settings.scaling.creation_timeout,
        );
        self.outputs.push_back(Output::StartBlock { block: id });
        self.event(Event::BlockStarting { block: id });
    }

    fn end_idle_blocks(&mut self, wanted: u32) {
        while self.blocks.live() > wanted {
            let Some((since, id)) = self.longest_idle() else { break };
            let due = since + self.settings.scaling.max_idletime;
            if due > self.now {
                self.timers.set(Timer::IdleBlock, due);
                return;
            }
            self.drain_block(id);
            self.blocks.change(id, self.now, |block| block.phase = Phase::Draining);
            self.timers
                .set(Timer::BlockTimeout(id), self.now + self.settings.scaling.drain_timeout);
            self.event(Event::BlockDraining {
                block: id,
                idle_for: self.now.since(since),
            });
            if self.mutated(Mutation::DeleteBusyBlock) {
                self.delete_block(id);
            }
        }
        self.timers.clear(Timer::IdleBlock);
    }

    fn longest_idle(&self) -> Option<(crate::Time, BlockId)> {
        if self.mutated(Mutation::DeleteBusyBlock) {
            return self
                .blocks
                .iter()
                .find(|(_, block)| block.phase == Phase::Up)
                .map(|(id, block)| (block.since, id));
        }
        self.blocks.longest_idle()
    }

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
        if self.may_act() {
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
        if !done {
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
                if self.blocks.get(id).is_some_and(|block| block.phase == Phase::Starting) {
                    self.forget_block(id);
                    self.start_failed(id, end);
                } else if self
                    .blocks
                    .get(id)
                    .is_some_and(|block| block.phase == Phase::Deleting && block.worker.is_none())
                {
                    self.forget_block(id);
                }
            }
        }
    }

    pub(crate) fn on_block_observed(&mut self, id: BlockId, state: BlockState) {
        if self.is_fenced() {
            return;
        }
        match state {
            BlockState::Ended(end) => self.on_block_ended(id, end),
            BlockState::Pending { .. } | BlockState::Running if self.blocks.get(id).is_none() => {
                // One of ours that we do not know: it has as long to say hello as any.
                self.found_block(id, Phase::Starting);
                self.timers.set(
                    Timer::BlockTimeout(id),
                    self.now + self.settings.scaling.creation_timeout,
                );
                if matches!(self.ending, Some(crate::transitions::drain::Ending::Stop { .. })) {
                    self.delete_block(id);
                }
            }
            BlockState::Pending { .. } => {
                // It was found at the start, but its worker has never run: nothing can be lost with it.
                let found = self.blocks.get(id).is_some_and(|block| {
                    matches!(block.phase, Phase::Silent { .. }) && block.slots == 0 && block.given.is_empty()
                });
                if found {
                    self.blocks.change(id, self.now, |block| block.phase = Phase::Starting);
                    self.timers.clear(Timer::WorkerGrace(id));
                    self.timers.set(
                        Timer::BlockTimeout(id),
                        self.now + self.settings.scaling.creation_timeout,
                    );
                    self.block_answered(id);
                }
            }
            BlockState::Running => {}
            BlockState::Ending(_) => {}
        }
    }

    fn on_block_ended(&mut self, id: BlockId, end: BlockEnd) {
        let Some(block) = self.blocks.get(id) else { return };
        let proven = block.proven || self.now.since(block.since) >= PROVEN_AFTER && block.phase != Phase::Starting;
        let failure = scaling::is_start_failure(block.phase, block.draining, proven);
        let expected = block.draining || matches!(block.phase, Phase::Draining | Phase::Deleting);
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
        if failure {
            self.start_failed(id, end);
        } else if proven {
            self.scaler.proven();
        }
        self.block_answered(id);
    }

    pub(crate) fn forget_block(&mut self, id: BlockId) {
        self.blocks.remove(id);
        for timer in [Timer::WorkerGrace(id), Timer::BlockTimeout(id), Timer::DeleteAgain(id)] {
            self.timers.clear(timer);
        }
    }

    /// A block did not come to be. After so many in a row, the tasks that wait for one are told why.
    fn start_failed(&mut self, id: BlockId, end: BlockEnd) {
        let (failures, until) = self.scaler.failed(&self.settings.scaling, &mut self.random, self.now);
        let again_in = until.since(self.now);
        self.event(Event::BlockStartFailed {
            block: id,
            end: end.clone(),
            failures,
            again_in,
        });
        if scaling::gives_up(&self.settings.scaling, failures, self.blocks.up()) {
            for task in self.tasks.all_waiting() {
                self.fail(
                    task,
                    Cause::NoBlockStarts {
                        failures,
                        end: end.clone(),
                    },
                    None,
                    None,
                );
            }
        }
    }

    pub(crate) fn on_block_timeout(&mut self, id: BlockId) {
        match self.blocks.get(id).map(|block| block.phase) {
            Some(Phase::Starting) => {
                self.delete_block(id);
                self.start_failed(id, scaling::not_registered(&self.settings.scaling));
            }
            Some(Phase::GivenUp { .. } | Phase::Draining | Phase::Deleting) => self.delete_block(id),
            Some(Phase::Up | Phase::Silent { .. }) | None => {}
        }
    }
}
