use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// An endpoint's heartbeat (`EPStatusReport`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Who reports.
    pub endpoint_id: Uuid,
    /// The figures. Written as `global_state`; older senders call it `ep_status_report`.
    #[serde(alias = "ep_status_report")]
    pub global_state: Map<String, Value>,
    /// The states of tasks that changed; today's endpoints leave it empty.
    #[serde(default)]
    pub task_statuses: Map<String, Value>,
}

impl StatusReport {
    /// Seconds until the next heartbeat; 0 from a template endpoint that is shutting down.
    #[must_use]
    pub fn heartbeat_period(&self) -> Option<f64> {
        self.global_state.get("heartbeat_period").and_then(Value::as_f64)
    }

    /// Whether the sender goes on running: false in the last heartbeat of either kind of endpoint.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.global_state.get("active").and_then(Value::as_bool).unwrap_or(true) && self.heartbeat_period() != Some(0.0)
    }

    /// Why a user endpoint could not start, if that is what the report says.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.global_state.get("error").and_then(Value::as_str)
    }
}
