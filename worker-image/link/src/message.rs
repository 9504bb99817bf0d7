//! What a worker and its agent say to each other.
//!
//! Fields named `body` and the lists of ids travel as the frame's raw payload, never inside its header.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{CodecError, VersionRange, token::BlockToken};

/// A message that can travel on the link: a header for msgpack, and a payload that is never looked into.
pub trait Message: Serialize + DeserializeOwned {
    /// The payload that goes after the header.
    ///
    /// # Errors
    /// [`CodecError::Encode`] if a list cannot be written.
    fn payload(&self) -> Result<Bytes, CodecError>;

    /// Puts the payload that came with the header into its place.
    ///
    /// # Errors
    /// [`CodecError`] if the payload is not what this message carries.
    fn accept(&mut self, payload: Bytes) -> Result<(), CodecError>;
}

/// From a worker to its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The first message of every connection.
    Hello(Box<Hello>),
    /// The worker takes this many tasks more than it has asked for so far on this connection.
    Credit {
        /// How many.
        tasks: u32,
    },
    /// A slot has begun with a task.
    Started {
        /// The task.
        task: Uuid,
        /// The attempt that [`ToWorker::Run`] named.
        attempt: u32,
        /// The slot, from 0.
        slot: u32,
    },
    /// A task ended with a result. Kept by the worker, and sent again after a redial, until [`ToWorker::Settled`].
    Finished {
        /// The task.
        task: Uuid,
        /// The attempt that [`ToWorker::Run`] named.
        attempt: u32,
        /// What the result says, for figures: the body is not looked into.
        outcome: Outcome,
        /// From the function's call to its packed result, in nanoseconds.
        run_time_ns: u64,
        /// The whole Result as it goes to the service: `0x01`, then JSON.
        #[serde(skip)]
        body: Bytes,
    },
    /// A task ended, and no executor was left to make its result. Kept and repeated as [`ToAgent::Finished`] is.
    Failed {
        /// The task.
        task: Uuid,
        /// The attempt that [`ToWorker::Run`] named.
        attempt: u32,
        /// What happened.
        failure: Box<Failure>,
    },
    /// A task was not begun, and will not be: the agent may give it to another worker.
    Refused {
        /// The task.
        task: Uuid,
        /// The attempt that [`ToWorker::Run`] named.
        attempt: u32,
        /// Why.
        reason: Refusal,
    },
    /// The worker lives. Sent when nothing else was for [`crate::HEARTBEAT`].
    Heartbeat,
    /// The worker was told to end (SIGTERM): it finishes what runs and takes nothing more.
    Draining {
        /// What is left for it, in milliseconds.
        grace_ms: u64,
    },
    /// The last message: the worker has nothing left and ends.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
}

/// From an agent to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The answer to a hello that was accepted.
    Welcome {
        /// The link version that both speak from here on.
        version: u16,
        /// How many bytes of results the worker may send before it gets more [`ToWorker::ResultCredit`].
        result_credit: u64,
    },
    /// The answer to a hello that was not. The agent closes the connection after it.
    Refused {
        /// Why, for programs.
        code: HelloRefusal,
        /// Why, for people.
        text: String,
    },
    /// Run a task.
    Run {
        /// The task.
        task: Uuid,
        /// Which try this is, from 0; it comes back with everything that is said of the task.
        attempt: u32,
        /// Import paths of the serializers for the result; empty leaves the choice to the SDK.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        result_serializers: Vec<String>,
        /// The Task as it came from the service: `0x01`, then JSON.
        #[serde(skip)]
        body: Bytes,
    },
    /// End a task, whatever it does; it is answered by `Failed` or `Refused`, or by a result that was already made.
    Cancel {
        /// The task.
        task: Uuid,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// Give a task back if it has not begun: the answer is `Refused` with [`Refusal::Recalled`]. If it has, or is not
    /// there, nothing is answered.
    Recall {
        /// The task.
        task: Uuid,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// Drop what is kept of a task's attempt and remember nothing of it: it is tried again, or nobody wants it.
    Forget {
        /// The task.
        task: Uuid,
        /// The attempt that is meant.
        attempt: u32,
    },
    /// The results of these tasks are safe: the worker may forget them, and keeps the bare ids for an hour.
    Settled {
        /// The tasks.
        #[serde(skip)]
        tasks: Vec<Uuid>,
    },
    /// The worker may send this many bytes of results more. It may send while its credit is above zero, so one
    /// result may take it below; the next waits until it is above zero again.
    ResultCredit {
        /// How many bytes.
        bytes: u64,
    },
    /// Finish what runs, take nothing more, then end.
    Drain {
        /// How long running tasks may still take, in milliseconds.
        grace_ms: u64,
    },
    /// The agent lives. Sent when nothing else was for [`crate::HEARTBEAT`].
    Heartbeat,
}

/// How a worker presents itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The link versions that it speaks.
    pub versions: VersionRange,
    /// The release of the worker.
    pub worker_version: String,
    /// Made at random when the worker process started: a second connection with the same one is the same worker,
    /// whose first connection broke, even if the agent has not noticed yet.
    pub instance: Uuid,
    /// The user endpoint that it works for.
    pub endpoint: Uuid,
    /// Its block.
    pub block: String,
    /// The proof that it is that block.
    pub token: BlockToken,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// The process id, in its own pid namespace.
    pub pid: u32,
    /// The machine's or the pod's name.
    pub hostname: String,
    /// Version of the Python that runs tasks, such as `3.11.2`; empty until known.
    pub python_version: String,
    /// Version of `globus-compute-sdk` in that Python; empty until known.
    pub sdk_version: String,
    /// The tasks that it has: not begun, running, or finished and not settled.
    #[serde(skip)]
    pub held: Vec<Held>,
    /// The tasks that were settled within the last hour.
    #[serde(skip)]
    pub settled: Vec<Uuid>,
}

/// One task that a worker has when it says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The task.
    pub task: Uuid,
    /// The attempt that [`ToWorker::Run`] named.
    pub attempt: u32,
    /// How far it is.
    pub state: HeldState,
}

/// How far a task is in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldState {
    /// Taken, not begun: no slot was free yet. A worker that gives such tasks up when it loses the link, as that of
    /// this release does, never says so.
    Waiting,
    /// In a slot.
    Running,
    /// Its result is kept here, and comes as [`ToAgent::Finished`] or [`ToAgent::Failed`] after the welcome, under
    /// the result credit.
    Finished,
}

/// What a result says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The function returned.
    Success,
    /// The function raised, or its arguments could not be unpacked (`RemoteExecutionError`).
    Raised,
    /// What it returned is over the limit (`MaxResultSizeExceeded`).
    TooLarge,
    /// The message was not a task (`CouldNotExecuteUserTaskError`).
    NotATask,
}

/// How a task ended that could not report itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What ended it.
    pub cause: Cause,
    /// The last lines that it printed, possibly cut at the front; empty if it printed nothing.
    pub output: String,
}

/// What ended a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its process was killed by a signal.
    Signal {
        /// The signal's number.
        number: i32,
    },
    /// Its process ended by itself, as `os._exit` does.
    Exit {
        /// The exit code.
        code: i32,
    },
    /// The worker killed it because memory ran out.
    OutOfMemory {
        /// The most that its process had, in bytes.
        peak: u64,
        /// What a slot may have, in bytes.
        limit: u64,
    },
    /// It ran on after `GC_TASK_TIMEOUT` had been raised in it.
    TimedOut {
        /// The timeout, in milliseconds.
        limit_ms: u64,
    },
    /// Its process closed the channel to the worker and was ended for that.
    LostChannel,
    /// The agent cancelled it.
    Cancelled,
    /// The worker was ended, and the task did not finish within the grace.
    GraceOver,
    /// No process could be made for it.
    CannotStart {
        /// What went wrong, for people.
        reason: String,
    },
}

/// Why a worker does not begin a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It was told to end.
    Draining,
    /// The task was cancelled before it began.
    Cancelled,
    /// It has this task already, or has finished it.
    Duplicate,
    /// The agent sent more than it was asked for.
    NoCredit,
    /// No process can be made for it now: it is better run elsewhere, or later.
    Busy,
    /// The agent recalled it before it began.
    Recalled,
}

/// Why an agent does not take a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloRefusal {
    /// This agent stands by for another: the worker dials again.
    NotMe,
    /// Another live connection uses the same token: the worker dials again.
    AlreadyConnected,
    /// No link version is spoken by both: the worker ends.
    Version,
    /// The token is not the block's: the worker ends.
    Token,
    /// The block is not wanted (any more): the worker ends.
    Unwanted,
}

impl HelloRefusal {
    /// True if it is of no use to dial again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::NotMe | Self::AlreadyConnected => false,
            Self::Version | Self::Token | Self::Unwanted => true,
        }
    }
}

/// Clauses that continue "the task ... ", for the error text that a submitter reads.
impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { number } => match signal_name(*number) {
                Some(name) => write!(formatter, "was ended by signal {number} ({name})"),
                None => write!(formatter, "was ended by signal {number}"),
            },
            Self::Exit { code } => write!(formatter, "ended its process with exit code {code}"),
            Self::OutOfMemory { peak, limit } => write!(
                formatter,
                "was ended because the worker ran out of memory: it had {} MiB, and a slot may have {} MiB",
                peak >> 20,
                limit >> 20
            ),
            Self::TimedOut { limit_ms } => write!(
                formatter,
                "was ended because it went on after its timeout of {} s (GC_TASK_TIMEOUT)",
                Duration::from_millis(*limit_ms).as_secs_f64()
            ),
            Self::LostChannel => formatter.write_str("was ended because its process closed the channel to the worker"),
            Self::Cancelled => formatter.write_str("was cancelled"),
            Self::GraceOver => formatter.write_str("was ended because its worker had to stop before it finished"),
            Self::CannotStart { reason } => write!(formatter, "could not be started: {reason}"),
        }
    }
}

/// The names of signals 1 to 15 and those that end a process by mistake, the same on every Linux architecture that
/// Globus Compute runs on (signal(7)).
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

impl Message for ToAgent {
    fn payload(&self) -> Result<Bytes, CodecError> {
        Ok(match self {
            Self::Hello(hello) => Bytes::from(rmp_serde::to_vec(&(&hello.held, &hello.settled))?),
            Self::Finished { body, .. } => body.clone(),
            Self::Credit { .. }
            | Self::Started { .. }
            | Self::Failed { .. }
            | Self::Refused { .. }
            | Self::Heartbeat
            | Self::Draining { .. }
            | Self::Goodbye { .. } => Bytes::new(),
        })
    }

    fn accept(&mut self, payload: Bytes) -> Result<(), CodecError> {
        match self {
            Self::Hello(hello) => (hello.held, hello.settled) = rmp_serde::from_slice(&payload)?,
            Self::Finished { body, .. } => *body = payload,
            Self::Credit { .. }
            | Self::Started { .. }
            | Self::Failed { .. }
            | Self::Refused { .. }
            | Self::Heartbeat
            | Self::Draining { .. }
            | Self::Goodbye { .. } => must_be_empty(&payload)?,
        }
        Ok(())
    }
}

impl Message for ToWorker {
    fn payload(&self) -> Result<Bytes, CodecError> {
        Ok(match self {
            Self::Run { body, .. } => body.clone(),
            Self::Settled { tasks } => {
                let mut ids = BytesMut::with_capacity(tasks.len() * 16);
                for task in tasks {
                    ids.put_slice(task.as_bytes());
                }
                ids.freeze()
            }
            Self::Welcome { .. }
            | Self::Refused { .. }
            | Self::Cancel { .. }
            | Self::Recall { .. }
            | Self::Forget { .. }
            | Self::ResultCredit { .. }
            | Self::Drain { .. }
            | Self::Heartbeat => Bytes::new(),
        })
    }

    fn accept(&mut self, payload: Bytes) -> Result<(), CodecError> {
        match self {
            Self::Run { body, .. } => *body = payload,
            Self::Settled { tasks } => {
                let (ids, rest) = payload.as_chunks::<16>();
                must_be_empty(rest)?;
                *tasks = ids.iter().copied().map(Uuid::from_bytes).collect();
            }
            Self::Welcome { .. }
            | Self::Refused { .. }
            | Self::Cancel { .. }
            | Self::Recall { .. }
            | Self::Forget { .. }
            | Self::ResultCredit { .. }
            | Self::Drain { .. }
            | Self::Heartbeat => must_be_empty(&payload)?,
        }
        Ok(())
    }
}

fn must_be_empty(payload: &[u8]) -> Result<(), CodecError> {
    if payload.is_empty() {
        Ok(())
    } else {
        Err(CodecError::Rule("a payload came with a message that has none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_as_the_rest_of_a_sentence() {
        assert_eq!(
            Cause::Signal { number: 11 }.to_string(),
            "was ended by signal 11 (SIGSEGV)"
        );
        assert_eq!(Cause::Signal { number: 64 }.to_string(), "was ended by signal 64");
        assert_eq!(
            Cause::Exit { code: 3 }.to_string(),
            "ended its process with exit code 3"
        );
        let memory = Cause::OutOfMemory {
            peak: 300 << 20,
            limit: 256 << 20,
        };
        assert!(
            memory
                .to_string()
                .ends_with("it had 300 MiB, and a slot may have 256 MiB")
        );
    }
}
