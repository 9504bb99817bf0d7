use crate::mutation::Mutation;
use crate::state::block::Phase;
use crate::state::task::State;
use crate::state::timers::Timer;
use crate::{BlockId, Cause, Drain, Output, TaskId, ToWorker, WorkerId};

/// How this life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The next agent takes over blocks and tasks.
    HandOver,
    /// The endpoint ends. `grace_over`: running tasks are waited for no longer; `keep`: nor is the broker, and results
    /// that it has not confirmed are the next life's.
    Stop { grace_over: bool, keep: bool },
    /// Another agent has taken over.
    Fenced,
}

impl crate::Engine {
    pub(crate) fn on_drain(&mut self, drain: Drain) {
        match (self.ending, drain) {
            (None, _) => {}
            (Some(Ending::HandOver), Drain::Stop) => {
                self.drained = false;
            }
            // It waits for nothing but the results in hand, and says again that there are none. It waits for the queue no
            // longer.
            (Some(Ending::Fenced), _) => {
                self.drained = false;
                self.outputs.push_back(Output::StopConsuming);
                return;
            }
            (Some(_), _) => return,
        }
        if self.ending.is_none() {
            self.outputs.push_back(Output::StopConsuming);
            // From here on whoever waits for the queue has it.
            self.holds_queue = false;
        }
        self.ending = Some(match drain {
            Drain::HandOver => Ending::HandOver,
            Drain::Stop => Ending::Stop {
                grace_over: false,
                keep: false,
            },
        });
        self.give_back_unbegun();
        if drain == Drain::Stop {
            self.timers.set(Timer::StopGrace, self.now + self.settings.stop_grace);
            self.drain_all_blocks();
        }
    }

    fn give_back_unbegun(&mut self) {
        for id in self.tasks.all_waiting().into_iter().chain(self.tasks.all_held()) {
            self.give_back(id);
        }
        let unbegun: Vec<(TaskId, BlockId)> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| match task.state {
                State::Given(given) if given.begun.is_none() && !given.recalled => Some((id, given.block)),
                State::Given(_) | State::Held | State::Waiting | State::Reserved { .. } | State::Done(_) => None,
            })
            .collect();
        for (id, block) in unbegun {
            self.recall_one(id, block);
        }
    }

    fn drain_all_blocks(&mut self) {
        for id in self.blocks.ids() {
            let Some(block) = self.blocks.get(id) else { continue };
            match block.phase {
                Phase::Starting | Phase::GivenUp { .. } => self.delete_block(id),
                Phase::Up => self.drain_block(id),
                Phase::Silent { .. } | Phase::Draining | Phase::Deleting => {}
            }
        }
    }

    /// A worker that dials while the endpoint stops is sent home.
    pub(crate) fn greet_ending(&mut self, _worker: WorkerId, block: BlockId) {
        if matches!(self.ending, Some(Ending::Stop { .. }))
            && self.blocks.get(block).is_some_and(|block| block.phase == Phase::Up)
        {
            self.drain_block(block);
        }
    }

    /// Tells a block's worker to end. It keeps what it has until that is done.
    pub(crate) fn drain_block(&mut self, id: BlockId) {
        self.blocks.change(id, self.now, |block| {
            block.draining = true;
            block.credit = 0;
        });
        self.tell_block(id, ToWorker::Drain);
    }

    pub(crate) fn on_stop_grace_over(&mut self) {
        if let Some(Ending::Stop { grace_over, .. }) = &mut self.ending {
            *grace_over = true;
        }
        let given: Vec<(TaskId, Option<BlockId>, bool)> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| match &task.state {
                State::Given(given) => Some((id, Some(given.block), given.begun.is_some())),
                State::Reserved { .. } => Some((id, None, false)),
                State::Held | State::Waiting | State::Done(_) => None,
            })
            .collect();
        for (id, block, begun) in given {
            if begun {
                self.system_failure(id, Cause::EndpointStopped, block, None);
            } else {
                self.give_back(id);
            }
        }
    }

    /// Somebody else holds the queue. What is done is published; all else is theirs.
    pub(crate) fn on_fenced(&mut self) {
        if self.mutated(Mutation::ForgetFence) {
            return;
        }
        self.ending = Some(Ending::Fenced);
        self.drained = false;
        self.ledger.lose();
        self.holds_queue = false;
        let undone: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| !matches!(task.state, State::Done(_)))
            .map(|(id, _)| id)
            .collect();
        for id in undone {
            self.let_go(id);
        }
        for id in self.blocks.ids() {
            if self.mutated(Mutation::KeepWorkers) {
                break;
            }
            self.tell_block(id, ToWorker::Close);
            self.forget_block(id);
        }
        self.timers.clear(Timer::RestartGrace);
        self.timers.clear(Timer::StartBackOff);
        self.timers.clear(Timer::StartPutOff);
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.ending == Some(Ending::Fenced)
    }

    /// Whether blocks may be started and deleted: nobody else does.
    pub(crate) const fn may_act(&self) -> bool {
        self.holds_queue || matches!(self.ending, Some(Ending::Stop { .. }))
    }

    /// Says [`Output::Drained`] once nothing is left that the ending waits for.
    pub(crate) fn check_ending(&mut self) {
        let Some(ending) = self.ending else { return };
        if self.drained {
            return;
        }
        let flushed = self.tasks.done_count() == 0;
        let done = match ending {
            Ending::Fenced => flushed,
            Ending::HandOver => flushed && self.blocks.recalled() == 0,
            Ending::Stop { .. } => {
                if flushed && self.tasks.given_count() == 0 {
                    for id in self.blocks.ids() {
                        if self.blocks.get(id).is_some_and(|block| block.phase != Phase::Deleting) {
                            self.delete_block(id);
                        }
                    }
                }
                flushed && self.tasks.given_count() == 0 && self.blocks.is_empty()
            }
        };
        if done {
            self.drained = true;
            self.timers.clear(Timer::StopGrace);
            self.outputs.push_back(Output::Drained);
        }
    }
}
