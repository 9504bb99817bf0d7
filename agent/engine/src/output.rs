//! What the engine wants done.

use std::sync::Arc;

use bytes::Bytes;

use crate::{BlockId, DeliveryTag, EntryId, Event, FunctionId, JournalRecord, PublishId, TaskId, Time, WorkerId};

/// One thing to do. What can fail carries an id under which its outcome comes back as an [`Input`](crate::Input).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to a worker. If its session is over, drop it.
    Send {
        /// To whom.
        worker: WorkerId,
        /// What.
        message: ToWorker,
    },
    /// Publish a result. The outcome comes as [`PublishOutcome`](crate::Input::PublishOutcome), or all at once as
    /// [`PublisherLost`](crate::Input::PublisherLost).
    Publish {
        /// Its id.
        publish: PublishId,
        /// The task it is the result of.
        task: TaskId,
        /// The message, as it is.
        body: Bytes,
    },
    /// `basic.ack`. If the channel is not the tag's any more, drop it.
    Ack {
        /// What.
        tag: DeliveryTag,
        /// Everything below it as well.
        multiple: bool,
    },
    /// `basic.nack` with requeue: somebody else, or we later, shall have it. If the channel is not the tag's, drop it.
    GiveBack {
        /// What.
        tag: DeliveryTag,
    },
    /// `basic.nack` with requeue of a task that goes on, so that the consumer timeout begins anew.
    Refresh {
        /// What.
        tag: DeliveryTag,
    },
    /// Cancel, qos, consume in one go on the same channel: old tags stay valid.
    SetPrefetch {
        /// The new window.
        window: u32,
    },
    /// Cancel the consumer, but keep the channel: tags stay valid.
    StopConsuming,
    /// Ask how many messages wait (passive declare, on a channel of its own); the answer is
    /// [`QueueDepth`](crate::Input::QueueDepth).
    AskQueueDepth,
    /// Append to the journal; the outcome comes as [`Journalled`](crate::Input::Journalled).
    Journal {
        /// Its id.
        entry: EntryId,
        /// What.
        record: JournalRecord,
    },
    /// Launch a block; the outcome comes as [`BlockStarted`](crate::Input::BlockStarted).
    StartBlock {
        /// Its name.
        block: BlockId,
    },
    /// End a block, whatever it does; the outcome comes as [`BlockDeleted`](crate::Input::BlockDeleted).
    DeleteBlock {
        /// Which.
        block: BlockId,
    },
    /// Something for metrics, logs and status.
    Event(Event),
    /// The drain that was asked for is done: nothing is in hand that could be flushed.
    Drained,
    /// Nothing more to do now. Give the next input, or [`Timeout`](crate::Input::Timeout) at this moment.
    Deadline {
        /// When.
        at: Time,
        /// What for.
        reason: DeadlineReason,
    },
    /// Nothing more to do, and nothing to wait for but inputs.
    Idle,
}

/// A message to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker {
    /// Run this. Uses up one credit.
    Run {
        /// Its id.
        task: TaskId,
        /// Its function.
        function: FunctionId,
        /// Counts from 0, and rises with each failure of the system.
        attempt: u32,
        /// AMQP header `resource_specification`, unparsed.
        resource_specification: Option<Arc<str>>,
        /// AMQP header `result_serializers`.
        result_serializers: Option<Arc<[String]>>,
        /// The message, as it came.
        body: Bytes,
    },
    /// Give this task back if it has not begun ([`TaskRefused`](crate::Input::TaskRefused) with `Recalled`); if it has,
    /// or is not there, say nothing. It is asked so that an idle executor elsewhere can have it.
    Recall {
        /// Which.
        task: TaskId,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// End this task if it is there. What the worker still says of it is answered by [`Forget`](Self::Forget).
    Cancel {
        /// Which.
        task: TaskId,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// The results of these are confirmed: drop them, and remember the ids for an hour.
    Settled {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Drop the result (or failure) of this attempt, and remember nothing: it may be run again.
    Forget {
        /// Which.
        task: TaskId,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// Results of so many more bytes may be sent. A result may be sent whole while any credit is left, so that no
    /// result is too large to be sent.
    ResultCredit {
        /// How many more.
        bytes: u64,
    },
    /// Take no more tasks, finish what is there, and end when all of it is settled.
    Drain,
    /// Another agent holds the queue: close the link and dial again.
    Close,
}

/// What the next deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadlineReason {
    /// A silent worker's tasks are given up.
    WorkerGrace,
    /// Redelivered tasks wait no longer for the blocks that were listed.
    RestartGrace,
    /// A result that the broker refused is published again.
    PublishAgain,
    /// A delivery is refreshed before the broker's consumer timeout.
    Refresh,
    /// The queue's depth may be asked again.
    AskQueueDepth,
    /// A block has been starting, draining or silent for too long.
    BlockTimeout,
    /// An idle block may be ended.
    IdleBlock,
    /// A block may be started again after failures.
    StartBackOff,
    /// A block that was put off, because the blocks that are there would have been faster, is started.
    StartPutOff,
    /// A deletion that failed is asked again.
    DeleteAgain,
    /// A stop waits no longer for running tasks.
    StopGrace,
}
