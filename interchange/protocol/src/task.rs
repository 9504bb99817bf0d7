use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// AMQP header: the function's id, a UUID. Without it an endpoint drops the message.
pub const HEADER_FUNCTION: &str = "function_uuid";
/// AMQP header: the task's id, a UUID. Without it an endpoint drops the message.
pub const HEADER_TASK: &str = "task_uuid";
/// AMQP header: the resource specification, as a JSON *string*.
pub const HEADER_RESOURCES: &str = "resource_specification";
/// AMQP header: an array of import paths of serializers for the result.
pub const HEADER_SERIALIZERS: &str = "result_serializers";

/// One call of one function, as it travels to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The task's id, the same as in the header.
    pub task_id: Uuid,
    /// Always null since function containers were removed (4.6); kept because clients send it.
    #[serde(default)]
    pub container_id: Option<Uuid>,
    /// As `container_id`.
    #[serde(default)]
    pub container: Option<serde_json::Value>,
    /// The packed function followed by its packed arguments: what the SDK's serializer made, opaque to everyone else.
    pub task_buffer: String,
}

/// What an endpoint must know of a task without looking into it: the AMQP headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeaders {
    /// [`HEADER_TASK`].
    pub task_uuid: Uuid,
    /// [`HEADER_FUNCTION`].
    pub function_uuid: Uuid,
    /// [`HEADER_RESOURCES`], unparsed.
    pub resource_specification: Option<String>,
    /// [`HEADER_SERIALIZERS`].
    #[serde(default)]
    pub result_serializers: Vec<String>,
}
