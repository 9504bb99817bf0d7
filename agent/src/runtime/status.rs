use serde::Serialize;
use uuid::Uuid;

use crate::broker::BrokerState;

/// What a user endpoint is doing, for `endpoint status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserEndpointState {
    /// Reading its journal, listing its blocks, or connecting for the first time.
    Starting,
    /// Consuming tasks.
    Running,
    /// The broker can not be reached; running tasks go on.
    Disconnected,
    /// Another agent holds the exclusive consumer of the task queue.
    Standby,
    /// The broker refuses its credentials; the next start command brings new ones.
    WaitingForCredentials,
    /// Told to end.
    Stopping,
    /// Ended.
    Ended,
}

/// One block of a user endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockStatus {
    /// Its name.
    pub name: String,
    /// `pending`, `running`, `draining`, ...
    pub state: String,
    /// Its slots; 0 until its worker has said hello.
    pub slots: usize,
    /// Slots with a running task.
    pub busy: usize,
    /// The node that it was put on, if the platform has nodes.
    pub node: Option<String>,
    /// Why it does not run yet, in the platform's words.
    pub waiting: Option<String>,
}

/// A user endpoint's state and figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserEndpointStatus {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: UserEndpointState,
    /// The connection to the broker.
    pub broker: BrokerState,
    /// Its blocks.
    pub blocks: Vec<BlockStatus>,
    /// The most blocks that it may have; 0 until it is known.
    pub blocks_max: u32,
    /// The option that says so: the smallest of `max_blocks`, `max_cores` and `max_memory`, or `strategy: none`.
    pub blocks_bound: Option<&'static str>,
    /// More blocks than that are wanted.
    pub blocks_bounded: bool,
    /// Slots of connected workers.
    pub slots: usize,
    /// Tasks held that have not started, and tasks known to wait in the queue.
    pub tasks_waiting: u64,
    /// Tasks that run.
    pub tasks_running: u64,
    /// Tasks held in any state, results that are not confirmed included.
    pub tasks_held: u64,
    /// Bytes held: task bodies and results.
    pub bytes_held: u64,
    /// Tasks settled since the start.
    pub tasks_settled: u64,
    /// How long the task that has waited longest has waited here, in milliseconds.
    pub oldest_wait_ms: Option<u64>,
    /// The last thing that went wrong, as a sentence.
    pub last_error: Option<String>,
}

impl UserEndpointStatus {
    pub(crate) const fn new(id: Uuid, name: String) -> Self {
        Self {
            id,
            name,
            state: UserEndpointState::Starting,
            broker: BrokerState::Connecting,
            blocks: Vec::new(),
            blocks_max: 0,
            blocks_bound: None,
            blocks_bounded: false,
            slots: 0,
            tasks_waiting: 0,
            tasks_running: 0,
            tasks_held: 0,
            bytes_held: 0,
            tasks_settled: 0,
            oldest_wait_ms: None,
            last_error: None,
        }
    }
}
