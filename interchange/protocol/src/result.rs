use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most that a serialized result may have, in bytes (`result_size_limit` of upstream's engine).
pub const RESULT_SIZE_LIMIT: usize = 10 * 1024 * 1024;

/// The values of [`ErrorDetails::code`] that clients know.
pub mod error_code {
    /// The function raised.
    pub const REMOTE_EXECUTION: &str = "RemoteExecutionError";
    /// The serialized result is over the limit.
    pub const RESULT_TOO_LARGE: &str = "MaxResultSizeExceeded";
    /// The message was not a task that could be run.
    pub const COULD_NOT_EXECUTE: &str = "CouldNotExecuteUserTaskError";
    /// The endpoint may not run this function.
    pub const FUNCTION_NOT_ALLOWED: &str = "FUNCTION_NOT_ALLOWED";
    /// Anything else.
    pub const UNKNOWN: &str = "UNKNOWN_TASK_FAILURE";
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task's id.
    pub task_id: Uuid,
    /// The serialized value, or the traceback's text if `error_details` is set.
    pub data: String,
    /// Where it ran: `os`, `python_version`, `dill_version`, `globus_compute_sdk_version`, `endpoint_id`.
    #[serde(default)]
    pub details: Option<serde_json::Value>,
    /// Set if the task failed.
    #[serde(default)]
    pub error_details: Option<ErrorDetails>,
    /// The steps of its life, oldest first.
    #[serde(default)]
    pub task_statuses: Vec<StatusEntry>,
}

/// How a task failed, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetails {
    /// One of [`error_code`].
    pub code: String,
    /// A sentence for the submitter.
    pub user_message: String,
}

/// One step of a task's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEntry {
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// What began or ended.
    pub state: State,
    /// Who says so.
    pub actor: Actor,
}

/// The steps that `globus-compute-common` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The service has it.
    Received,
    /// It is on its way to the endpoint.
    WaitingForEp,
    /// The endpoint has no node for it yet.
    WaitingForNodes,
    /// A node has it, no worker yet.
    WaitingForLaunch,
    /// The function was called.
    ExecutionStart,
    /// The function returned or raised.
    ExecutionEnd,
    /// A state of globus-compute-common that endpoints seldom send.
    Running,
    /// It ended well.
    Success,
    /// It ended badly.
    Failed,
    /// The service has its result.
    ResultReceived,
    /// The service has put its result on the client's queue.
    ResultEnqueued,
}

/// The part of an endpoint that reports a [`StatusEntry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The endpoint's engine.
    Interchange,
    /// A node's manager.
    Manager,
    /// The process that ran the function.
    Worker,
    /// The endpoint as a whole.
    Endpoint,
    /// The service's result processor.
    ResultProcessor,
    /// The service's API.
    WebService,
}
