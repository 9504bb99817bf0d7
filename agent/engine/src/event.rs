//! What the engine tells about itself: for metrics, logs and status. Nothing in here needs doing.

use std::time::Duration;

use crate::{BlockEnd, BlockId, CauseKind, PublishOutcome, Slot, TaskId, TaskOutcome, Waiting, WorkerId};

/// One thing worth counting, or a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A task came that was not known.
    TaskAccepted {
        /// Which.
        task: TaskId,
        /// Its size.
        bytes: usize,
        /// The broker's flag.
        redelivered: bool,
    },
    /// A delivery came of a task that is in hand: it took the new tag.
    TaskRedelivered {
        /// Which.
        task: TaskId,
    },
    /// A delivery came of a task that is settled: it was acknowledged, not run.
    SettledTaskRedelivered {
        /// Which.
        task: TaskId,
    },
    /// A task was sent to a worker.
    TaskDispatched {
        /// Which.
        task: TaskId,
        /// To whom.
        worker: WorkerId,
        /// In which block.
        block: BlockId,
        /// Counts from 0.
        attempt: u32,
        /// Since it was accepted, or came back to the queue.
        waited: Duration,
    },
    /// A task of an earlier life was found with a worker.
    TaskAdopted {
        /// Which.
        task: TaskId,
        /// Where.
        block: BlockId,
    },
    /// An executor began a task.
    TaskStarted {
        /// Which.
        task: TaskId,
        /// Where.
        block: BlockId,
        /// In which executor.
        slot: Slot,
    },
    /// An executor ended a task.
    TaskFinished {
        /// Which.
        task: TaskId,
        /// Where.
        block: BlockId,
        /// How.
        outcome: TaskOutcome,
        /// The result's size.
        bytes: usize,
        /// Since its start, if that was seen.
        ran: Option<Duration>,
    },
    /// The system ended a task, and it will be tried again.
    TaskRetried {
        /// Which.
        task: TaskId,
        /// How often it was ended so.
        failures: u32,
        /// By what.
        cause: CauseKind,
    },
    /// A task was given up.
    TaskFailed {
        /// Which.
        task: TaskId,
        /// Because of what.
        cause: CauseKind,
        /// Where, if anywhere.
        block: Option<BlockId>,
    },
    /// A task was, or was being, run a second time without need.
    TaskRunTwice {
        /// Which.
        task: TaskId,
        /// Where the second one was.
        block: BlockId,
    },
    /// A worker was asked for a task that it had not begun.
    TaskRecalled {
        /// Which.
        task: TaskId,
        /// From whom.
        worker: WorkerId,
    },
    /// A task was given back to the broker.
    TaskGivenBack {
        /// Which.
        task: TaskId,
    },
    /// A delivery was refreshed.
    DeliveryRefreshed {
        /// Which task's.
        task: TaskId,
    },
    /// A publish was not confirmed.
    PublishFailed {
        /// Whose result.
        task: TaskId,
        /// What became of it.
        outcome: PublishOutcome,
        /// When it is published again; `None`: as soon as the broker is back.
        again_in: Option<Duration>,
    },
    /// A result was confirmed.
    ResultConfirmed {
        /// Whose.
        task: TaskId,
        /// Since it was first published in this life.
        took: Duration,
        /// How often it was published in this life.
        publishes: u32,
    },
    /// A result that no broker has confirmed stands in the journal, and is the next life's to publish.
    ResultKept {
        /// Whose.
        task: TaskId,
    },
    /// A task's confirmed result stands in the journal, and its delivery, if there is one, is acknowledged.
    TaskSettled {
        /// Which.
        task: TaskId,
        /// Since it was accepted or adopted.
        took: Duration,
    },
    /// The journal could not be written: memory of the settled is this process's alone for these entries.
    JournalFailed {
        /// How many entries.
        entries: usize,
    },
    /// More bytes are held than may be (`true`), or no longer (`false`).
    HeldBytesExceeded(bool),
    /// A worker said hello.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// Its block.
        block: BlockId,
        /// Its executors.
        slots: u32,
        /// It had been here before, or in an earlier life.
        returned: bool,
    },
    /// A worker's link is gone.
    WorkerSilent {
        /// Who.
        worker: WorkerId,
        /// Its block.
        block: BlockId,
    },
    /// A silent worker was not back in time.
    WorkerGivenUp {
        /// Its block.
        block: BlockId,
        /// How many tasks it had.
        tasks: usize,
    },
    /// A block is being started.
    BlockStarting {
        /// Which.
        block: BlockId,
    },
    /// A block did not come to be.
    BlockStartFailed {
        /// Which.
        block: BlockId,
        /// Why.
        end: BlockEnd,
        /// How many in a row.
        failures: u32,
        /// When the next one is tried.
        again_in: Duration,
    },
    /// A block does not run yet, and the platform says why, or something else than before.
    BlockWaiting {
        /// Which.
        block: BlockId,
        /// What keeps it.
        waiting: Waiting,
    },
    /// The platform is ending a block, which gets no more tasks.
    BlockEnding {
        /// Which.
        block: BlockId,
        /// How it will have ended.
        end: BlockEnd,
    },
    /// No block starts: the waiting tasks were told so, and one start after the other is tried until one succeeds.
    CircuitOpened {
        /// How many starts failed in a row.
        failures: u32,
        /// The last one.
        end: BlockEnd,
        /// How many tasks were told.
        tasks: usize,
    },
    /// A worker said hello, so that blocks start again.
    CircuitClosed,
    /// A block is being ended because it had nothing to do.
    BlockDraining {
        /// Which.
        block: BlockId,
        /// How long it was idle.
        idle_for: Duration,
    },
    /// A block is being deleted.
    BlockDeleting {
        /// Which.
        block: BlockId,
    },
    /// A block is gone.
    BlockEnded {
        /// Which.
        block: BlockId,
        /// How.
        end: BlockEnd,
        /// How many tasks it had.
        tasks: usize,
        /// We ended it.
        expected: bool,
    },
    /// The blocks that were listed at the start are all accounted for, or were waited for long enough.
    RestartSettled {
        /// How many did not answer.
        missing: usize,
        /// How many redelivered tasks waited.
        tasks: usize,
    },
}

impl Event {
    /// A static name, for counting.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TaskAccepted { .. } => "task_accepted",
            Self::TaskRedelivered { .. } => "task_redelivered",
            Self::SettledTaskRedelivered { .. } => "settled_task_redelivered",
            Self::TaskDispatched { .. } => "task_dispatched",
            Self::TaskAdopted { .. } => "task_adopted",
            Self::TaskStarted { .. } => "task_started",
            Self::TaskFinished { .. } => "task_finished",
            Self::TaskRetried { .. } => "task_retried",
            Self::TaskFailed { .. } => "task_failed",
            Self::TaskRunTwice { .. } => "task_run_twice",
            Self::TaskRecalled { .. } => "task_recalled",
            Self::TaskGivenBack { .. } => "task_given_back",
            Self::DeliveryRefreshed { .. } => "delivery_refreshed",
            Self::PublishFailed { .. } => "publish_failed",
            Self::ResultConfirmed { .. } => "result_confirmed",
            Self::ResultKept { .. } => "result_kept",
            Self::TaskSettled { .. } => "task_settled",
            Self::JournalFailed { .. } => "journal_failed",
            Self::HeldBytesExceeded(_) => "held_bytes_exceeded",
            Self::WorkerJoined { .. } => "worker_joined",
            Self::WorkerSilent { .. } => "worker_silent",
            Self::WorkerGivenUp { .. } => "worker_given_up",
            Self::BlockStarting { .. } => "block_starting",
            Self::BlockStartFailed { .. } => "block_start_failed",
            Self::BlockWaiting { .. } => "block_waiting",
            Self::BlockEnding { .. } => "block_ending",
            Self::CircuitOpened { .. } => "circuit_opened",
            Self::CircuitClosed => "circuit_closed",
            Self::BlockDraining { .. } => "block_draining",
            Self::BlockDeleting { .. } => "block_deleting",
            Self::BlockEnded { .. } => "block_ended",
            Self::RestartSettled { .. } => "restart_settled",
        }
    }
}
