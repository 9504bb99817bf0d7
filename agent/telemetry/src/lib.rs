//! What the endpoint shows of itself: metrics, logs, probes, status.

mod control;
mod http;
mod logs;
mod metrics;

pub use control::{ask_control, serve_control};
pub use http::{Probes, serve_http};
pub use logs::{LogFormat, LogTarget, redact, start_logs};
pub use metrics::{
    ApiOutcome, ApiRequests, ApiResource, ApiVerb, BlockEnd, BlockState, BlockWait, CommandOutcome, Connection,
    Counter, DeliveryKind, Gauge, HeartbeatOutcome, Label, Metrics, Publish, Refused, Seconds, ServiceOutcome, Share,
    SlotState, TaskOutcome, TaskState,
};
