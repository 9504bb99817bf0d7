//! Why a task has no result of its own.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{BlockId, FunctionId, TaskId, Time};

/// Makes the result that says a [`Failure`], ready for the wire. It must be a function of its arguments alone (the time
/// is [`Failure::at`]), so that the same failure is always the same bytes.
pub trait ComposeFailure: Send {
    /// The message to publish: 0x01 and the JSON of a result with `error_details`.
    fn compose(&self, task: TaskId, failure: &Failure) -> Bytes;
}

impl<F: Fn(TaskId, &Failure) -> Bytes + Send> ComposeFailure for F {
    fn compose(&self, task: TaskId, failure: &Failure) -> Bytes {
        self(task, failure)
    }
}

/// A failure that no executor could report, with what its user needs in order to act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub cause: Cause,
    /// Where, if it was given to a block.
    pub block: Option<BlockId>,
    /// How often the task was begun and ended by the system, this time included; 0 if it was never begun.
    pub attempts: u32,
    /// When the task was given up.
    pub at: Time,
}

/// What ended a task, or kept it from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The executor process that ran it ended.
    ExecutorDied(ExecutorEnd),
    /// Its block ended under it.
    BlockEnded {
        /// How, in the provider's words.
        end: BlockEnd,
        /// How many other tasks ran in the block at that moment.
        neighbours: u32,
    },
    /// Its worker fell silent and was not back in time, though its block seems to exist.
    WorkerLost {
        /// How long it was silent.
        silent_for: Duration,
    },
    /// Its worker was away, came back, and did not know the task any more.
    WorkerForgot,
    /// It was begun in an earlier life of the agent, and what ran it is gone.
    Interrupted,
    /// No block could be started for it.
    NoBlockStarts {
        /// How many starts failed in a row.
        failures: u32,
        /// The last one.
        end: BlockEnd,
    },
    /// The worker said that it can't run it.
    Refused {
        /// In the worker's words.
        reason: String,
    },
    /// Its function may not run on this endpoint.
    Denied {
        /// The function.
        function: FunctionId,
    },
    /// At-most-once, and the journal could not be written, so that a start could not have been remembered.
    JournalFailed,
    /// It was cancelled.
    Cancelled,
    /// The endpoint was stopped while it ran.
    EndpointStopped,
}

/// A static label for each [`Cause`], for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each says what the cause of the same name says")]
pub enum CauseKind {
    ExecutorDied,
    OutOfMemory,
    BlockEnded,
    WorkerLost,
    WorkerForgot,
    Interrupted,
    NoBlockStarts,
    Refused,
    Denied,
    JournalFailed,
    Cancelled,
    EndpointStopped,
}

impl CauseKind {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 12] = [
        Self::ExecutorDied,
        Self::OutOfMemory,
        Self::BlockEnded,
        Self::WorkerLost,
        Self::WorkerForgot,
        Self::Interrupted,
        Self::NoBlockStarts,
        Self::Refused,
        Self::Denied,
        Self::JournalFailed,
        Self::Cancelled,
        Self::EndpointStopped,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExecutorDied => "executor_died",
            Self::OutOfMemory => "out_of_memory",
            Self::BlockEnded => "block_ended",
            Self::WorkerLost => "worker_lost",
            Self::WorkerForgot => "worker_forgot",
            Self::Interrupted => "interrupted",
            Self::NoBlockStarts => "no_block_starts",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::JournalFailed => "journal_failed",
            Self::Cancelled => "cancelled",
            Self::EndpointStopped => "endpoint_stopped",
        }
    }
}

impl Cause {
    /// Its label.
    #[must_use]
    pub const fn kind(&self) -> CauseKind {
        match self {
            Self::ExecutorDied(end) if matches!(end.how, ExecutorExit::OutOfMemory(_)) => CauseKind::OutOfMemory,
            Self::ExecutorDied(_) => CauseKind::ExecutorDied,
            Self::BlockEnded { end, .. } => match end.kind {
                BlockEndKind::OutOfMemory => CauseKind::OutOfMemory,
                BlockEndKind::Completed
                | BlockEndKind::Crashed
                | BlockEndKind::Evicted
                | BlockEndKind::Drained
                | BlockEndKind::Preempted
                | BlockEndKind::NodeLost
                | BlockEndKind::Deleted
                | BlockEndKind::CannotStart
                | BlockEndKind::Rejected
                | BlockEndKind::Unschedulable
                | BlockEndKind::ImageNotPulled
                | BlockEndKind::Misconfigured
                | BlockEndKind::CreationTimeout
                | BlockEndKind::NotRegistered
                | BlockEndKind::Unknown => CauseKind::BlockEnded,
            },
            Self::WorkerLost { .. } => CauseKind::WorkerLost,
            Self::WorkerForgot => CauseKind::WorkerForgot,
            Self::Interrupted => CauseKind::Interrupted,
            Self::NoBlockStarts { .. } => CauseKind::NoBlockStarts,
            Self::Refused { .. } => CauseKind::Refused,
            Self::Denied { .. } => CauseKind::Denied,
            Self::JournalFailed => CauseKind::JournalFailed,
            Self::Cancelled => CauseKind::Cancelled,
            Self::EndpointStopped => CauseKind::EndpointStopped,
        }
    }
}

/// How an executor ended under a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorEnd {
    /// What ended it.
    pub how: ExecutorExit,
    /// The last lines that the task printed; may be empty.
    pub output: String,
}

/// What ended an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorExit {
    /// Its process ended.
    Process(ProcessExit),
    /// The supervisor ended it because memory ran out.
    OutOfMemory(MemoryUse),
    /// We cancelled the task.
    Cancelled,
    /// Its worker had to end before the task did.
    GraceOver,
    /// Something else, in the worker's words: they continue the sentence "the task ...".
    Other {
        /// Such as "took longer than the 60 s that it may".
        words: String,
    },
    /// No process could be made for it.
    CannotStart {
        /// In the worker's words.
        reason: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessExit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody knows.
    #[default]
    Unknown,
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
            Self::Unknown => formatter.write_str("an unknown end"),
        }
    }
}

/// Memory that a process had, and might have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The most it had, in bytes.
    pub peak: u64,
    /// Its limit, in bytes.
    pub limit: u64,
}

/// How a block ended, or why it never came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEnd {
    /// The sort of end.
    pub kind: BlockEndKind,
    /// What happened in full words for the user, as what follows "because": the pod, its node, the platform's reason, a
    /// limit. May be empty.
    pub message: String,
    /// How the worker process ended, if known.
    pub exit: ProcessExit,
    /// The block's memory limit in bytes, if that matters and is known.
    pub memory_limit: Option<u64>,
    /// The last lines that the block printed; may be empty.
    pub output: String,
}

impl BlockEnd {
    /// An end of which only this is known.
    #[must_use]
    pub fn new(kind: BlockEndKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            exit: ProcessExit::Unknown,
            memory_limit: None,
            output: String::new(),
        }
    }
}

/// The sorts of a block's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockEndKind {
    /// The worker ended by itself with exit code 0.
    Completed,
    /// The worker ended with another exit code, or by a signal.
    Crashed,
    /// The block was killed for its use of memory.
    OutOfMemory,
    /// The node was short of something.
    Evicted,
    /// The node is being emptied (`kubectl drain`, the eviction API).
    Drained,
    /// Something more important took its place.
    Preempted,
    /// The node is gone, or was shut down or reclaimed.
    NodeLost,
    /// Somebody deleted it; not us.
    Deleted,
    /// It never started, and another may: the platform could not be reached, a quota, an admission webhook, a missing
    /// permission, a node that would not have it. Tried again, ever later.
    CannotStart,
    /// The platform refused what it was asked for, and would again: bad configuration. The waiting tasks are told at
    /// once.
    Rejected,
    /// The platform had no room for it in the time that it had ([`WaitingCause::Scheduling`](crate::WaitingCause)).
    Unschedulable,
    /// Its image could not be pulled in the time that it had ([`WaitingCause::Image`](crate::WaitingCause)).
    ImageNotPulled,
    /// It could not work as it was ([`WaitingCause::Never`](crate::WaitingCause)).
    Misconfigured,
    /// It did not run within the time that it had, for no reason that the platform named.
    CreationTimeout,
    /// It ran, but its worker never said hello.
    NotRegistered,
    /// It is gone, and nobody knows why.
    Unknown,
}

impl BlockEndKind {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 16] = [
        Self::Completed,
        Self::Crashed,
        Self::OutOfMemory,
        Self::Evicted,
        Self::Drained,
        Self::Preempted,
        Self::NodeLost,
        Self::Deleted,
        Self::CannotStart,
        Self::Rejected,
        Self::Unschedulable,
        Self::ImageNotPulled,
        Self::Misconfigured,
        Self::CreationTimeout,
        Self::NotRegistered,
        Self::Unknown,
    ];

    /// A static label for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Crashed => "crashed",
            Self::OutOfMemory => "out_of_memory",
            Self::Evicted => "evicted",
            Self::Drained => "drained",
            Self::Preempted => "preempted",
            Self::NodeLost => "node_lost",
            Self::Deleted => "deleted",
            Self::CannotStart => "cannot_start",
            Self::Rejected => "rejected",
            Self::Unschedulable => "unschedulable",
            Self::ImageNotPulled => "image_not_pulled",
            Self::Misconfigured => "misconfigured",
            Self::CreationTimeout => "creation_timeout",
            Self::NotRegistered => "not_registered",
            Self::Unknown => "unknown",
        }
    }
}
