use std::time::Duration;

use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, Input, StartOutcome};

use crate::Fault;
use crate::machine::Machine;
use crate::world::{Happening, Via, World};

impl World<'_> {
    pub(crate) fn start_block(&mut self, block: BlockId) {
        let wrong = self.goes_wrong(Fault::Start);
        let fails = wrong && self.chance.happens(500);
        let created = !fails && (!wrong || self.chance.happens(700));
        let latency = self.latency();
        let outcome = if fails {
            StartOutcome::Failed(BlockEnd::new(BlockEndKind::CannotStart, "the platform said no"))
        } else if wrong {
            StartOutcome::Unknown
        } else {
            StartOutcome::Started
        };
        self.input(latency, Via::Process, Input::BlockStarted { block, outcome });
        if created {
            let slow = if wrong { 300_000 } else { 5_000 };
            let (created_in, ready_in) = (self.latency(), self.chance.millis(10, slow));
            self.creating.insert(block);
            self.after(created_in, Happening::BlockCreated { block, ready_in });
        }
    }

    pub(crate) fn block_created(&mut self, block: BlockId, ready_in: Duration) {
        if !self.creating.remove(&block) {
            return;
        }
        let machine = Machine::new(self.now);
        self.machines.insert(block, machine);
        self.observe(block, BlockState::Pending { why: None });
        self.after(ready_in, Happening::BlockReady { block });
    }

    fn observe(&mut self, block: BlockId, state: BlockState) {
        let latency = self.latency();
        self.input(latency, Via::Process, Input::BlockObserved { block, state });
    }

    pub(crate) fn block_ready(&mut self, block: BlockId) {
        if !self.machines.get(&block).is_some_and(|machine| machine.exists) {
            return;
        }
        self.observe(block, BlockState::Running);
        self.dial_after(block, Duration::from_millis(10));
    }

    pub(crate) fn delete_block(&mut self, block: BlockId) {
        let latency = self.latency();
        let wrong = self.goes_wrong(Fault::Delete);
        self.input(latency, Via::Process, Input::BlockDeleted { block, done: !wrong });
        if !wrong || self.chance.happens(500) {
            let latency = self.latency();
            if self.creating.remove(&block) {
                self.observe(
                    block,
                    BlockState::Ended(BlockEnd::new(BlockEndKind::Deleted, "never made")),
                );
            } else if self.machines.get(&block).is_some_and(|machine| machine.exists) {
                self.after(
                    latency,
                    Happening::BlockDies {
                        block,
                        end: BlockEnd::new(BlockEndKind::Deleted, "deleted"),
                    },
                );
            } else {
                self.observe(
                    block,
                    BlockState::Ended(BlockEnd::new(BlockEndKind::Deleted, "not found")),
                );
            }
        }
    }

    pub(crate) fn block_dies(&mut self, block: BlockId, end: BlockEnd) {
        let Some(machine) = self.machines.get_mut(&block).filter(|machine| machine.exists) else {
            return;
        };
        let session = machine.session;
        *machine = Machine::default();
        self.trace(|| format!("block {block} dies: {:?}", end.kind));
        self.checkers.block_gone(block);
        if let Some(worker) = session {
            self.agent.links.remove(&worker);
            let latency = self.chance.millis(1, 15_000);
            self.input(latency, Via::Process, Input::WorkerLost { worker });
        }
        self.observe(block, BlockState::Ended(end));
    }
}
