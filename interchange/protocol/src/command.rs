use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::QueueInfo;

/// [`Command::command`] of the one command that the service sends: start (or refresh) a user endpoint.
pub const START_ENDPOINT: &str = "cmd_start_endpoint";

/// A message on `<endpoint>.commands`: bare JSON, content type `application/json`, with an AMQP timestamp in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The method's name.
    pub command: String,
    /// Positional arguments; always empty today.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Named arguments.
    pub kwargs: StartArguments,
    /// The identity (`sub`) for which the user endpoint runs.
    pub globus_effective_identity: Uuid,
    /// Its name, for people.
    pub globus_username: String,
    /// All identities linked to it: one of them must be the endpoint owner's.
    pub globus_identity_set: Vec<IdentityClaim>,
}

/// One linked identity; the service may send more claims than `sub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityClaim {
    /// The identity's id.
    pub sub: Uuid,
}

/// What [`START_ENDPOINT`] needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartArguments {
    /// `uep.<endpoint id>.<user endpoint id>`.
    pub name: String,
    /// The submitter's `user_endpoint_config`, for the template.
    #[serde(default)]
    pub user_opts: Option<Map<String, Value>>,
    /// What the submitter runs (SDK and Python version, ...), for the template.
    #[serde(default)]
    pub user_runtime: Option<Map<String, Value>>,
    /// How the user endpoint connects.
    pub amqp_creds: AmqpCredentials,
}

/// The three connections of a user endpoint or a direct endpoint. Their URLs hold passwords.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AmqpCredentials {
    /// The user endpoint's id.
    pub endpoint_id: Uuid,
    /// Where its tasks come from.
    pub task_queue_info: QueueInfo,
    /// Where its results go.
    pub result_queue_info: QueueInfo,
    /// Where its heartbeats go.
    pub heartbeat_queue_info: QueueInfo,
}
