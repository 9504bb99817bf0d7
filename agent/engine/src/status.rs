//! The engine at a glance.

use std::time::Duration;

use crate::state::block::Phase;
use crate::{BlockEnd, BlockId, Bound, Engine, Time, Waiting};

/// Figures of one moment, for status, heartbeats and gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Tasks in the queue, those held back after a restart included.
    pub tasks_waiting: usize,
    /// Tasks that a block has and has not reported begun.
    pub tasks_queued: usize,
    /// Tasks that run.
    pub tasks_running: usize,
    /// Results that are not settled.
    pub results: usize,
    /// Messages that wait at the broker, as far as that is known.
    pub queue_depth: u64,
    /// Deliveries that are not acknowledged.
    pub unacknowledged: usize,
    /// The prefetch window.
    pub window: u32,
    /// Bytes of tasks and results held.
    pub held_bytes: u64,
    /// How long the task that has waited longest has.
    pub oldest_wait: Option<Duration>,
    /// Blocks asked for whose worker has not said hello.
    pub blocks_starting: usize,
    /// Those of them that wait for a node or for their image, as the platform says ([`Engine::waiting_blocks`]).
    pub blocks_waiting: usize,
    /// Blocks whose worker is there.
    pub blocks_up: usize,
    /// Blocks whose worker's link is gone.
    pub blocks_silent: usize,
    /// Blocks that are being ended.
    pub blocks_ending: usize,
    /// Blocks that there should be.
    pub blocks_wanted: u32,
    /// The most blocks that there may be.
    pub blocks_max: u32,
    /// The option that says so: the smallest of the bounds, or the strategy.
    pub blocks_bound: Bound,
    /// The same, if it keeps more blocks from being wanted now.
    pub blocks_bounded_by: Option<Bound>,
    /// Starts that failed in a row ([`Engine::last_start_failure`]).
    pub start_failures: u32,
    /// When a block may be started again, if not now.
    pub next_start: Option<Duration>,
    /// The waiting tasks were told that no block starts, and none has since.
    pub circuit_open: bool,
    /// Slots of the workers that are there.
    pub slots: u32,
    /// How many of the settled are remembered.
    pub settled_remembered: usize,
}

impl Status {
    /// Tasks that are in hand, or wait at the broker: none of them means that the endpoint is idle.
    #[must_use]
    pub const fn outstanding(&self) -> u64 {
        (self.tasks_waiting + self.tasks_queued + self.tasks_running + self.results) as u64 + self.queue_depth
    }
}

impl Engine {
    /// The blocks that do not run yet though they exist, and what keeps them.
    pub fn waiting_blocks(&self) -> impl Iterator<Item = (BlockId, &Waiting)> + '_ {
        self.blocks
            .iter()
            .filter(|(_, block)| block.phase == Phase::Starting)
            .filter_map(|(id, block)| Some((id, block.launch.waiting()?)))
    }

    /// How the last start failed, if none has done well since.
    #[must_use]
    pub fn last_start_failure(&self) -> Option<&BlockEnd> {
        self.scaler.failures().1
    }

    /// The figures of this moment. Takes time in proportion to the blocks and tasks in hand.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        let wanted = self.wanted_blocks();
        let mut status = Status {
            tasks_waiting: self.tasks.waiting_count() + self.tasks.held_count(),
            results: self.tasks.done_count(),
            queue_depth: self.depth.ready(),
            unacknowledged: self.ledger.len(),
            window: self.window.size,
            held_bytes: self.tasks.held_bytes(),
            slots: self.blocks.slots(),
            settled_remembered: self.settled.len(),
            blocks_waiting: self.blocks.obstructed(),
            blocks_wanted: wanted.blocks,
            blocks_max: self.settings.scaling.max_blocks,
            blocks_bound: self.settings.scaling.bound,
            blocks_bounded_by: wanted.bounded.then_some(self.settings.scaling.bound),
            start_failures: self.scaler.failures().0,
            next_start: self.scaler.paused_until(now).map(|at| at.since(now)),
            circuit_open: self.scaler.is_open(),
            ..Status::default()
        };
        status.tasks_running = self.tasks.iter().filter(|(_, task)| task.is_running()).count();
        status.tasks_queued = self.tasks.given_count() - status.tasks_running;
        status.oldest_wait = self
            .tasks
            .iter()
            .filter(|(_, task)| task.is_waiting())
            .map(|(_, task)| now.since(task.accepted))
            .max();
        for (_, block) in self.blocks.iter() {
            match block.phase {
                Phase::Starting => status.blocks_starting += 1,
                Phase::Up if block.draining => status.blocks_ending += 1,
                Phase::Up => status.blocks_up += 1,
                Phase::Silent { .. } | Phase::GivenUp { .. } => status.blocks_silent += 1,
                Phase::Draining | Phase::Deleting => status.blocks_ending += 1,
            }
        }
        status
    }
}
