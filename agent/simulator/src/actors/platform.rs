use std::time::Duration;

use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, Input, StartOutcome, Time, Waiting, WaitingCause};

use crate::Fault;
use crate::happening::{Happening, Via};
use crate::state::Machine;
use crate::world::World;

/// How many nodes there are.
const NODES: u32 = 3;

fn waiting(cause: WaitingCause) -> BlockState {
    let text = cause.as_str().to_owned();
    let why = Some(Waiting { cause, text });
    BlockState::Pending { why }
}

impl World<'_> {
    pub(crate) fn start_block(&mut self, block: BlockId) {
        let away = self.cluster.api_at > self.now;
        let wrong = away || self.goes_wrong(Fault::Start);
        // A conflict with a name that is being deleted is a failure, too.
        let fails = wrong && self.chance.happens(if away { 900 } else { 500 });
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
            self.cluster.creating.insert(block);
            self.after(created_in, Happening::BlockCreated { block, ready_in });
        }
    }

    pub(crate) fn block_created(&mut self, block: BlockId, ready_in: Duration) {
        if !self.cluster.creating.remove(&block) {
            return;
        }
        let machine = Machine::new(self.now);
        self.machines.insert(block, machine);
        self.observe(block, BlockState::Pending { why: None });
        if self.goes_wrong(Fault::Never) {
            self.observe(block, waiting(WaitingCause::Never));
            return;
        }
        self.block_advances(block, ready_in);
    }

    /// A block comes one step further, if nothing is in its way.
    pub(crate) fn block_advances(&mut self, block: BlockId, ready_in: Duration) {
        if !self.machines.get(&block).is_some_and(|machine| machine.exists) {
            return;
        }
        let obstacles = [
            (self.cluster.room_at, WaitingCause::Scheduling),
            (self.cluster.images_at, WaitingCause::Image),
        ];
        for (at, cause) in obstacles {
            if at > self.now {
                self.observe(block, waiting(cause));
                self.at(at, Happening::BlockAdvances { block, ready_in });
                return;
            }
        }
        let nodes: Vec<u32> = (0..NODES)
            .filter(|node| !self.cluster.lost.contains_key(node))
            .collect();
        let Some(node) = self.chance.choose(&nodes) else {
            self.observe(block, waiting(WaitingCause::Scheduling));
            self.after(Duration::from_secs(5), Happening::BlockAdvances { block, ready_in });
            return;
        };
        if let Some(machine) = self.machines.get_mut(&block) {
            machine.node = Some(node);
        }
        self.observe(block, waiting(WaitingCause::Other));
        self.after(ready_in, Happening::BlockReady { block });
    }

    /// The platform sees a block in a state, and says so.
    fn observe(&mut self, block: BlockId, state: BlockState) {
        if let Some(machine) = self.machines.get_mut(&block).filter(|machine| machine.exists) {
            machine.state = Some(state.clone());
        }
        let at = self.seen_at();
        for life in self.alive() {
            self.tell_observed(life, at, block, state.clone());
        }
    }

    /// When what the platform sees now is told: in its order.
    fn seen_at(&mut self) -> Time {
        let latency = self.latency();
        let at = (self.now + latency).max(self.cluster.watch).max(self.cluster.api_at);
        self.cluster.watch = at;
        at
    }

    fn tell_observed(&mut self, life: u64, at: Time, block: BlockId, state: BlockState) {
        let (via, input) = (Via::Process, Input::BlockObserved { block, state });
        self.at(at, Happening::ToAgent { life, via, input });
    }

    /// An agent that begins is told of every block how it is.
    pub(crate) fn observe_all(&mut self) {
        let states: Vec<(BlockId, BlockState)> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.exists)
            .filter_map(|(id, machine)| Some((*id, machine.state.clone()?)))
            .collect();
        let life = self.agent.life;
        for (block, state) in states {
            let at = self.seen_at();
            self.tell_observed(life, at, block, state);
        }
    }

    pub(crate) fn block_ready(&mut self, block: BlockId) {
        if !self
            .machines
            .get(&block)
            .is_some_and(|machine| machine.exists && !machine.on_lost_node)
        {
            return;
        }
        self.observe(block, BlockState::Running);
        if self.goes_wrong(Fault::Crash) {
            let pause = self.chance.millis(1, 10_000);
            let end = BlockEnd::new(BlockEndKind::Crashed, "its worker ended with exit code 127");
            self.after(pause, Happening::BlockDies { block, end });
        }
        if !self.goes_wrong(Fault::Mute) {
            self.dial_after(block, Duration::from_millis(10));
        }
    }

    pub(crate) fn delete_block(&mut self, block: BlockId) {
        let latency = self.latency();
        let away = self.cluster.api_at > self.now;
        let wrong = away || self.goes_wrong(Fault::Delete);
        self.input(latency, Via::Process, Input::BlockDeleted { block, done: !wrong });
        if wrong && !self.chance.happens(500) {
            return;
        }
        let latency = self.latency();
        let exists = self.machines.get(&block).is_some_and(|machine| machine.exists);
        let end = |words| BlockEnd::new(BlockEndKind::Deleted, words);
        if self.cluster.creating.remove(&block) {
            self.observe(block, BlockState::Ended(end("never made")));
        } else if exists {
            let end = end("deleted");
            self.after(latency, Happening::BlockDies { block, end });
        } else {
            self.observe(block, BlockState::Ended(end("not found")));
        }
    }

    /// The platform ends a block: it says so, tells the worker, and waits for a while.
    pub(crate) fn platform_ends(&mut self, block: BlockId, end: BlockEnd) {
        self.observe(block, BlockState::Ending(end.clone()));
        self.terminate(block);
        let grace = self.chance.millis(10, 60_000);
        self.after(grace, Happening::GraceOver { block, end });
    }

    /// A node is gone. What runs on it is dead, or lives where nobody can reach it; the platform does not know.
    pub(crate) fn lose_node(&mut self) {
        let node = self.chance.number(0, NODES - 1);
        if self.cluster.lost.contains_key(&node) {
            return;
        }
        let until = self.now + self.chance.millis(5_000, 400_000);
        self.cluster.lost.insert(node, until);
        let dead = self.chance.happens(500);
        let blocks: Vec<BlockId> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.exists && machine.node == Some(node))
            .map(|(id, _)| *id)
            .collect();
        for block in blocks {
            self.break_link(block, true);
            if dead {
                self.checkers.block_gone(block);
            }
            if let Some(machine) = self.machines.get_mut(&block) {
                machine.on_lost_node = true;
                machine.unreachable_until = Some(until);
                if dead {
                    machine.die_unseen();
                }
            }
            let end = BlockEnd::new(BlockEndKind::NodeLost, "its node does not answer");
            self.observe(block, BlockState::Ending(end));
        }
        self.at(until, Happening::NodeBack { node });
    }

    /// A node is back, and ends what the platform has given up.
    pub(crate) fn node_back(&mut self, node: u32) {
        if self.cluster.lost.remove(&node).is_none() {
            return;
        }
        let blocks: Vec<BlockId> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.exists && machine.on_lost_node && machine.node == Some(node))
            .map(|(id, _)| *id)
            .collect();
        for block in blocks {
            let end = BlockEnd::new(BlockEndKind::NodeLost, "its node was lost");
            if let Some(machine) = self.machines.get_mut(&block) {
                machine.on_lost_node = false;
            }
            if self.machines.get(&block).is_some_and(|machine| machine.dead) {
                self.block_dies(block, end);
            } else {
                self.platform_ends(block, end);
            }
        }
    }

    pub(crate) fn heal_cluster(&mut self) {
        let now = self.now;
        (self.cluster.room_at, self.cluster.images_at, self.cluster.api_at) = (now, now, now);
        let nodes: Vec<u32> = self.cluster.lost.keys().copied().collect();
        for node in nodes {
            self.node_back(node);
        }
    }

    pub(crate) fn block_dies(&mut self, block: BlockId, end: BlockEnd) {
        let Some(machine) = self.machines.get_mut(&block).filter(|machine| machine.exists) else {
            return;
        };
        if machine.on_lost_node {
            // Whoever asks for its end is heard when the node is back.
            return;
        }
        let (session, life) = (machine.session, machine.agent);
        *machine = Machine::default();
        self.trace(|| format!("block {block} dies: {:?}", end.kind));
        self.checkers.block_gone(block);
        if let Some(worker) = session {
            self.unlink(life, worker);
            let latency = self.chance.millis(1, 15_000);
            let (via, input) = (Via::Process, Input::WorkerLost { worker });
            self.after(latency, Happening::ToAgent { life, via, input });
        }
        self.observe(block, BlockState::Ended(end));
    }
}
