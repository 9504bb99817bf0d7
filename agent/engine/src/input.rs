//! What happens to the engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    BlockEnd, BlockId, ChannelEpoch, DeliveryTag, EntryId, ExecutorEnd, FunctionId, PublishId, Slot, TaskId, WorkerId,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// We hold the task queue on this channel. Deliveries by it may follow.
    ConsumerStarted {
        /// The new channel.
        channel: ChannelEpoch,
    },
    /// The channel is gone, or the broker sent `basic.cancel` on it (then close it, so that what is unacknowledged goes
    /// back): its tags mean nothing any more, and somebody else may hold the queue. Nothing is started, created or deleted until [`ConsumerStarted`](Self::ConsumerStarted).
    ConsumerLost {
        /// The channel that was lost.
        channel: ChannelEpoch,
    },
    /// Somebody else holds the queue (403 "exclusive use"): all that is not a result in hand is theirs now. The engine
    /// closes the links, publishes what it has, and ends with [`Output::Drained`](crate::Output::Drained). When the queue
    /// is ours again, make another engine as at a start.
    Fenced,
    /// The broker's consumer timeout, learned from a 406 that names it.
    ConsumerTimeout {
        /// As the broker said it.
        timeout: Duration,
    },
    /// A task came.
    Delivery(Delivery),
    /// A task came that may not run here: it is not begun, and its result says so.
    Denied(Delivery),
    /// The answer to [`Output::AskQueueDepth`](crate::Output::AskQueueDepth).
    QueueDepth {
        /// Messages that wait in the queue, those delivered to us not counted; `None` if the question was refused.
        ready: Option<u64>,
    },
    /// Results can be published.
    PublisherStarted,
    /// The publisher's channel is gone: what became of every publish without an outcome is unknown.
    PublisherLost,
    /// What became of a publish.
    PublishOutcome {
        /// Which.
        publish: PublishId,
        /// What.
        outcome: PublishOutcome,
    },
    /// What became of [`Output::Journal`](crate::Output::Journal)s: of every entry up to and including this one that
    /// has had no outcome yet.
    Journalled {
        /// The last entry this is about.
        through: EntryId,
        /// Whether they were written.
        written: bool,
    },
    /// The provider's list of the blocks that exist: given once, before the first
    /// [`ConsumerStarted`](Self::ConsumerStarted).
    BlocksListed {
        /// All of them, of whatever epoch.
        blocks: Vec<BlockId>,
    },
    /// A worker dialled and was let in.
    WorkerHello {
        /// The new session.
        worker: WorkerId,
        /// Its block. An older session of the same block is over with this.
        block: BlockId,
        /// Its executors.
        slots: u32,
        /// Everything it has of tasks.
        held: Vec<HeldTask>,
    },
    /// A worker will take this many tasks more than it has asked for so far in this session: first as many as it has
    /// room for, then one for each task that ended, was refused or was cancelled.
    WorkerCredit {
        /// Who.
        worker: WorkerId,
        /// How many more.
        tasks: u32,
    },
    /// A worker will end: it takes no more tasks, and finishes what it has.
    WorkerDraining {
        /// Who.
        worker: WorkerId,
    },
    /// An executor began a task.
    TaskStarted {
        /// Whose executor.
        worker: WorkerId,
        /// What.
        task: TaskId,
        /// The attempt that [`ToWorker::Run`](crate::ToWorker::Run) named.
        attempt: u32,
        /// Which executor.
        slot: Slot,
    },
    /// An executor packed a task's result. The worker keeps it until it is told [`Settled`](crate::ToWorker::Settled).
    TaskFinished {
        /// Whose executor.
        worker: WorkerId,
        /// What.
        task: TaskId,
        /// The attempt that [`ToWorker::Run`](crate::ToWorker::Run) named.
        attempt: u32,
        /// Whether the function returned or raised.
        outcome: TaskOutcome,
        /// The message to publish, as it is.
        body: Bytes,
    },
    /// A task's executor ended under it. The worker keeps this, too, until it is told
    /// [`Settled`](crate::ToWorker::Settled) or [`Forget`](crate::ToWorker::Forget).
    TaskDied {
        /// Whose executor.
        worker: WorkerId,
        /// What.
        task: TaskId,
        /// The attempt that [`ToWorker::Run`](crate::ToWorker::Run) named.
        attempt: u32,
        /// How.
        end: ExecutorEnd,
    },
    /// A task that was sent will not be run by this worker, and was not begun.
    TaskRefused {
        /// By whom.
        worker: WorkerId,
        /// What.
        task: TaskId,
        /// The attempt that [`ToWorker::Run`](crate::ToWorker::Run) named.
        attempt: u32,
        /// Why.
        reason: RefusalReason,
    },
    /// A worker's session is over: closed, broken, or silent for too long.
    WorkerLost {
        /// Whose.
        worker: WorkerId,
    },
    /// What the provider saw of a block.
    BlockObserved {
        /// Which.
        block: BlockId,
        /// What.
        state: BlockState,
    },
    /// What became of [`Output::StartBlock`](crate::Output::StartBlock).
    BlockStarted {
        /// Which.
        block: BlockId,
        /// What.
        outcome: StartOutcome,
    },
    /// What became of [`Output::DeleteBlock`](crate::Output::DeleteBlock). If it was done, an
    /// [`Ended`](BlockState::Ended) follows once the block is gone.
    BlockDeleted {
        /// Which.
        block: BlockId,
        /// Whether the provider took the request. If not, or if nobody knows, it is asked again.
        done: bool,
    },
    /// How many bytes of tasks and results may be held from now on ([`Settings::held_bytes`](crate::Settings::held_bytes)).
    HeldBytesAllowed {
        /// How many.
        bytes: u64,
    },
    /// A task is not wanted any more.
    Cancel {
        /// Which.
        task: TaskId,
    },
    /// The end of this life.
    Drain(Drain),
    /// While the endpoint stops ([`Drain::Stop`]): the broker is waited for no longer. Results that it has not confirmed
    /// go into the journal, and the next life publishes them. If the journal can not be written they are held as before.
    KeepResults,
    /// The deadline that [`Output::Deadline`](crate::Output::Deadline) named has been reached.
    Timeout,
}

/// A task as the broker delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub tag: DeliveryTag,
    /// AMQP header `task_uuid`.
    pub task: TaskId,
    /// AMQP header `function_uuid`.
    pub function: FunctionId,
    /// The broker's flag: it was delivered before, to us or to another.
    pub redelivered: bool,
    /// Header `x-delivery-count`; only a quorum queue sets it.
    pub delivery_count: Option<u64>,
    /// AMQP header `resource_specification`, unparsed.
    pub resource_specification: Option<Arc<str>>,
    /// AMQP header `result_serializers`.
    pub result_serializers: Option<Arc<[String]>>,
    /// The message, 0x01 and all.
    pub body: Bytes,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublishOutcome {
    /// The broker has it.
    Confirmed,
    /// The broker had no queue for it.
    Returned,
    /// The broker would not take it.
    Nacked,
    /// Nobody knows.
    Unknown,
}

/// Something that a worker has of a task when it says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTask {
    /// The task.
    pub task: TaskId,
    /// The attempt that [`ToWorker::Run`](crate::ToWorker::Run) named.
    pub attempt: u32,
    /// What.
    pub state: HeldState,
}

/// How far a worker is with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldState {
    /// It waits for a slot.
    Queued,
    /// It runs.
    Running,
    /// It ended; a [`Input::TaskFinished`] or [`Input::TaskDied`] follows as soon as the credit for results allows.
    Finished,
    /// Its result was confirmed, by an earlier life perhaps.
    Settled,
}

/// How a task ended in its executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskOutcome {
    /// The function returned.
    Succeeded,
    /// The function raised, or its result could not be packed or was too large: the body says it.
    Failed,
}

/// Why a worker does not run a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    /// We asked for it back ([`ToWorker::Recall`](crate::ToWorker::Recall)).
    Recalled,
    /// The worker is ending.
    Draining,
    /// It was sent more than it asked for.
    NoCredit,
    /// It has this task already, or had its result settled. That is a contradiction, and ends the attempt.
    Duplicate,
    /// No worker like this one can run it: an error result says why.
    Impossible {
        /// In words for the submitter.
        why: String,
    },
}

/// What a provider saw of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockState {
    /// It exists and does not run yet.
    Pending {
        /// Why, if the platform says.
        why: Option<Waiting>,
    },
    /// Its worker's container runs; the worker may or may not have dialled.
    Running,
    /// The platform is ending it, and this is how it will have ended: evicted, preempted, drained from its node,
    /// deleted by hand. Its worker may still finish what it has. [`Ended`](Self::Ended) follows.
    Ending(BlockEnd),
    /// It is gone. Nothing more comes of it.
    Ended(BlockEnd),
}

/// What keeps a block from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The sort of obstacle: it decides how long the block may wait.
    pub cause: WaitingCause,
    /// The platform's own words, for the submitter and for status.
    pub text: String,
}

/// The sorts of obstacles between a block and its running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitingCause {
    /// No node has room for it, or suits it: one may still come
    /// ([`Scaling::scheduling_timeout`](crate::Scaling::scheduling_timeout)).
    Scheduling,
    /// Its image could not be pulled, and is tried again: `ErrImagePull`, `ImagePullBackOff`
    /// ([`Scaling::image_grace`](crate::Scaling::image_grace)).
    Image,
    /// It can not work as it is: `InvalidImageName`, `ErrImageNeverPull`, `CreateContainerConfigError`, a missing
    /// Secret. Given up at once.
    Never,
    /// Anything else, such as a container that is being made
    /// ([`Scaling::creation_timeout`](crate::Scaling::creation_timeout)).
    Other,
}

impl WaitingCause {
    /// A static label for metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduling => "scheduling",
            Self::Image => "image",
            Self::Never => "misconfigured",
            Self::Other => "other",
        }
    }
}

/// What became of the start of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartOutcome {
    /// It exists.
    Started,
    /// It does not, and never will under this name.
    Failed(BlockEnd),
    /// Nobody knows; it may yet say hello.
    Unknown,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drain {
    /// The next agent takes over: give back what has not started, flush results, leave the blocks running.
    HandOver,
    /// The endpoint ends: the same, then let running tasks end ([`Settings::stop_grace`](crate::Settings::stop_grace))
    /// and delete all blocks.
    Stop,
}
