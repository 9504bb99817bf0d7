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
    /// How many blocks may be starting at once.
    pub starts_in_flight: u32,
    /// How long a block may take from its start to its worker's hello.
    pub creation_timeout: Duration,
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
            starts_in_flight: 10,
            creation_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            start_back_off_min: Duration::from_secs(1),
            start_back_off_max: Duration::from_secs(60),
            start_failures_max: 5,
        }
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
