//! What the endpoint shows of itself: metrics, logs, probes, status.

mod metrics;

pub use metrics::{
    BlockEnd, BlockState, CommandOutcome, Connection, DeliveryKind, Label, Metrics, Publish, ServiceOutcome, Share,
    SlotState, TaskOutcome, TaskState,
};
