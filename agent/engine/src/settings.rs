//! What the engine is told once.

use std::time::Duration;

/// Everything that steers an engine. [`Settings::default`] has the documented defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Goes into the [`BlockId`](crate::BlockId)s of this life; higher than that of every life before.
    pub epoch: u64,
    /// Executors per block (`max_workers_per_node`), at least 1.
    pub slots_per_block: u32,
    /// When and how many blocks are started and ended.
    pub scaling: Scaling,
    /// How often a task that the system ended is tried again (`max_retries_on_system_failure`).
    pub max_retries_on_system_failure: u32,
    /// How long a worker may be silent before its tasks are given up, and how long redelivered tasks wait at start for
    /// the blocks that were found.
    pub reconnect_grace: Duration,
    /// How long a silent block of which nothing else is known is kept, in the hope that its worker dials again.
    pub silent_block_timeout: Duration,
    /// The most bytes of tasks and results held.
    pub held_bytes: u64,
    /// How many deliveries may be unacknowledged.
    pub prefetch: Prefetch,
    /// When a delivery is acknowledged.
    pub acknowledge: Acknowledge,
    /// What an interruption does to a task.
    pub guarantee: Guarantee,
    /// The broker's time for an acknowledgement (`consumer_timeout`; 30 min by default). Half of it is used.
    pub consumer_timeout: Duration,
    /// How long the settled are remembered.
    pub settled_memory: Duration,
    /// How many of the settled are remembered.
    pub settled_count: usize,
    /// First pause before a result that the broker refused is published again; doubled each time.
    pub publish_back_off_min: Duration,
    /// Longest pause before it is published again.
    pub publish_back_off_max: Duration,
    /// How long running tasks may take to end when the endpoint is stopped ([`Drain::Stop`](crate::Drain::Stop)).
    pub stop_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epoch: 1,
            slots_per_block: 1,
            scaling: Scaling::default(),
            max_retries_on_system_failure: 0,
            reconnect_grace: Duration::from_secs(60),
            silent_block_timeout: Duration::from_secs(15 * 60),
            held_bytes: 256 * 1024 * 1024,
            prefetch: Prefetch::default(),
            acknowledge: Acknowledge::AfterResult,
            guarantee: Guarantee::AtLeastOnce,
            consumer_timeout: Duration::from_secs(30 * 60),
            settled_memory: Duration::from_secs(60 * 60),
            settled_count: 100_000,
            publish_back_off_min: Duration::from_millis(200),
            publish_back_off_max: Duration::from_secs(30),
            stop_grace: Duration::from_secs(30),
        }
    }
}

/// When and how many blocks are started and ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Blocks started at once, tasks or no tasks (`init_blocks`).
    pub init_blocks: u32,
    /// Blocks that are always kept (`min_blocks`).
    pub min_blocks: u32,
    /// The most blocks that may exist (`max_blocks`).
    pub max_blocks: u32,
    /// Slots wanted per outstanding task (`parallelism`), 0 to 1.
    pub parallelism: f64,
    /// How long a block must have had nothing to do before it may be ended (`max_idletime`).
    pub max_idletime: Duration,
    /// Blocks that are kept ready beyond those that the outstanding tasks ask for (`min_idle_blocks`).
    pub min_idle_blocks: u32,
    /// What `max_blocks` stands for, so that status can say what to change.
    pub bound: Bound,
    /// How many blocks may be starting at once until one has come up, at first and after a start has failed.
    pub starts_in_flight: u32,
    /// How many may be starting at once from then on.
    pub starts_in_flight_max: u32,
    /// How long a block may take from its start to its running, if the platform names no obstacle that has a time of
    /// its own.
    pub creation_timeout: Duration,
    /// How long a block's container may run before its worker says hello.
    pub registration_timeout: Duration,
    /// How long a block may wait for a node before the waiting tasks are told that there is none.
    pub scheduling_timeout: Duration,
    /// What becomes of the tasks then.
    pub on_unschedulable: OnUnschedulable,
    /// How long the platform may try to pull an image that it could not pull.
    pub image_grace: Duration,
    /// For how long a block must not have been wanted before it is ended, whatever `max_idletime` says, and before one
    /// that has an obstacle in its way is withdrawn: so that a gap between two tasks ends nothing.
    pub deletion_lag: Duration,
    /// For how long at most a block is put off because, at the pace at which tasks end, the slots in hand take the waiting
    /// tasks before it could come up.
    pub start_lag: Duration,
    /// How long a worker that was told to drain may take to end before its block is deleted.
    pub drain_timeout: Duration,
    /// First pause after a block that failed to start; doubled each time in a row.
    pub start_back_off_min: Duration,
    /// Longest such pause.
    pub start_back_off_max: Duration,
    /// After how many failed starts in a row, with no block up, the waiting tasks are told why. 0: never.
    pub start_failures_max: u32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            init_blocks: 1,
            min_blocks: 0,
            max_blocks: 1,
            parallelism: 1.0,
            max_idletime: Duration::from_secs(120),
            min_idle_blocks: 0,
            bound: Bound::MaxBlocks,
            starts_in_flight: 10,
            starts_in_flight_max: 200,
            creation_timeout: Duration::from_secs(600),
            registration_timeout: Duration::from_secs(300),
            scheduling_timeout: Duration::from_secs(600),
            on_unschedulable: OnUnschedulable::Fail,
            image_grace: Duration::from_secs(30),
            deletion_lag: Duration::from_secs(5),
            start_lag: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            start_back_off_min: Duration::from_secs(1),
            start_back_off_max: Duration::from_secs(60),
            start_failures_max: 5,
        }
    }
}

/// What becomes of the waiting tasks when no node takes a block (`on_unschedulable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnschedulable {
    /// They fail with the scheduler's words.
    Fail,
    /// They wait on, for as long as it takes.
    Wait,
}

/// Which option bounds the number of blocks: the smallest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Bound {
    /// `max_blocks`.
    #[default]
    MaxBlocks,
    /// `max_cores`, in cores of one block.
    MaxCores,
    /// `max_memory`, in memory of one block.
    MaxMemory,
    /// `strategy: none`: as many as were started at first.
    Strategy,
}

impl Bound {
    /// The option's name, with its value where that is a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxBlocks => "max_blocks",
            Self::MaxCores => "max_cores",
            Self::MaxMemory => "max_memory",
            Self::Strategy => "strategy: none",
        }
    }
}

/// What all blocks together may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// `max_blocks`.
    pub max_blocks: u32,
    /// `max_cores`, if there is such a bound.
    pub max_cores: Option<f64>,
    /// `max_memory` in bytes, if there is such a bound.
    pub max_memory: Option<u64>,
}

impl Budget {
    /// How many blocks of so many cores and bytes it allows, and which of its bounds is the smallest. A block of which
    /// nothing is known (0) uses nothing of that.
    #[must_use]
    pub fn blocks(&self, cores: f64, memory: u64) -> (u32, Bound) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast saturates, as it should"
        )]
        // A hair more than asked for: 0.3 cores are three blocks of 0.1, though not in binary.
        let by_cores = |most: f64| (most / cores + 1e-9) as u32;
        let by_memory = |most: u64| u32::try_from(most / memory).unwrap_or(u32::MAX);
        let cores = self.max_cores.filter(|_| cores > 0.0).map(by_cores);
        let memory = self.max_memory.filter(|_| memory > 0).map(by_memory);
        let mut least = (self.max_blocks, Bound::MaxBlocks);
        for (blocks, bound) in [(cores, Bound::MaxCores), (memory, Bound::MaxMemory)] {
            if let Some(blocks) = blocks.filter(|blocks| *blocks < least.0) {
                least = (blocks, bound);
            }
        }
        least
    }
}

/// The range of the prefetch window: it begins at `initial`, follows the mean size seen, and is 1 while too many bytes
/// are held. It never limits the slots: with more than `max / 2` of them, it may grow to twice their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Before any size was seen.
    pub initial: u32,
    /// The most; fewer than 1,000 halves the throughput of small tasks.
    pub max: u32,
}

impl Default for Prefetch {
    fn default() -> Self {
        Self { initial: 32, max: 1000 }
    }
}

/// When a delivery is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// Once its result is confirmed by the broker. The broker is the journal until then.
    AfterResult,
    /// Once it stands in the journal: for a service that does not bear late acknowledgements (`broker.ack: on_accept`).
    OnAccept,
}

/// What an interruption does to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// It is tried again as far as `max_retries_on_system_failure` allows; what had not begun is simply run.
    AtLeastOnce,
    /// Its start is journalled before it is sent, and an interrupted task is an error result, always.
    AtMostOnce,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_bound_of_a_budget_wins_and_says_so() {
        const GIB: u64 = 1 << 30;
        let budget = |max_blocks, max_cores, max_memory| Budget {
            max_blocks,
            max_cores,
            max_memory,
        };
        for (budget, expected) in [
            (budget(5, None, None), (5, Bound::MaxBlocks)),
            (budget(5, Some(8.0), None), (4, Bound::MaxCores)),
            (budget(5, Some(8.0), Some(12 * GIB)), (3, Bound::MaxMemory)),
            (budget(2, Some(4.0), Some(8 * GIB)), (2, Bound::MaxBlocks)),
            (budget(5, Some(1.9), None), (0, Bound::MaxCores)),
        ] {
            assert_eq!(budget.blocks(2.0, 4 * GIB), expected, "{budget:?}");
        }
        assert_eq!(budget(5, Some(0.3), None).blocks(0.1, 0), (3, Bound::MaxCores));
        assert_eq!(budget(5, Some(1.0), Some(1)).blocks(0.0, 0), (5, Bound::MaxBlocks));
    }
}
