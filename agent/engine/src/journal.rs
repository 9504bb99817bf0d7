//! What outlives the process on disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::{BlockId, FunctionId, TaskId, Time};

/// One line of the journal. The engine says what to write; the caller writes it (a plain write: it must survive the
/// process, not the power) and gives everything back to [`Engine::restore`](crate::Engine::restore) at the next start.
///
/// What the journal may forget: a [`Settled`](Self::Settled) an hour older than the newest record or not among the newest
/// 100,000, and whatever else stands in it about a task that has a `Settled`. Of a task without `Settled`, `Accepted` and
/// `Result` must be kept, and a [`Started`](Self::Started) if it is among the newest 100,000, however old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalRecord {
    /// A worker began a task.
    Started {
        /// The task.
        task: TaskId,
        /// Counts from 0.
        attempt: u32,
        /// Where.
        block: BlockId,
        /// When.
        at: Time,
    },
    /// A result of the task was confirmed by the broker: it must never be started again.
    Settled {
        /// The task.
        task: TaskId,
        /// When.
        at: Time,
    },
    /// The task is, or will be, acknowledged before it has a result: from here on this record is all there is of it.
    Accepted {
        /// The task as it came.
        task: AcceptedTask,
        /// When.
        at: Time,
    },
    /// This is the task's result, and no later life is to publish another: either the task was given up, and it says
    /// why (written before it is published), or the endpoint was stopped before the broker had confirmed it
    /// ([`Input::KeepResults`](crate::Input::KeepResults)).
    Result {
        /// The task.
        task: TaskId,
        /// The message to publish.
        body: Bytes,
        /// When.
        at: Time,
    },
}

/// A task as it came from the broker, without its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedTask {
    /// Its id.
    pub task: TaskId,
    /// Its function.
    pub function: FunctionId,
    /// AMQP header `resource_specification`, unparsed.
    pub resource_specification: Option<Arc<str>>,
    /// AMQP header `result_serializers`.
    pub result_serializers: Option<Arc<[String]>>,
    /// The message. `None` if the task runs and may not be run again, so that nobody needs it any more.
    pub body: Option<Bytes>,
}
