//! Every metric of the agent: its name and help stand here and nowhere else, its labels in `labels`.
//!
//! Label values are closed enums, never ids, so the number of series is bounded. `docs/metrics.md` lists the same
//! table for people, and a test compares the two.

// Its macro is used by those below.
#[macro_use]
mod labels;
mod instruments;
mod kubernetes;

use std::fmt;
use std::sync::Arc;

use prometheus::{Encoder, Registry, TextEncoder};

pub use instruments::{Counter, Gauge, Seconds, Share};
use instruments::{single, single_gauge};
pub use kubernetes::{ApiOutcome, ApiRequests, ApiResource, ApiVerb};
pub use labels::{
    BlockEnd, BlockState, BlockWait, CommandOutcome, Connection, DeliveryKind, HeartbeatOutcome, Label, Publish,
    Refused, ServiceOutcome, SlotState, TaskOutcome, TaskState,
};

/// From 0.1 ms, for hops inside the machine room.
const SHORT: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
/// From 1 ms to hours, for waiting and running.
const LONG: &[f64] = &[
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 36000.0,
];

/// All metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Tasks that the broker delivered.
    pub tasks_received: Counter<DeliveryKind>,
    /// From a task's delivery to its start on a worker.
    pub task_queue_wait: Seconds,
    /// From a task's start to its end, as the agent sees it.
    pub task_run: Seconds,
    /// From a result's publish to the broker's confirm.
    pub result_confirm: Seconds,
    /// Tasks that ended.
    pub task_results: Counter<TaskOutcome>,
    /// Results that were published.
    pub result_publishes: Counter<Publish>,
    /// Tasks held now.
    pub tasks: Gauge<TaskState>,
    /// Blocks there are now.
    pub blocks: Gauge<BlockState>,
    /// Blocks that do not run yet for a reason that the platform gives.
    pub blocks_waiting: Gauge<BlockWait>,
    /// Slots there are now.
    pub slots: Gauge<SlotState>,
    /// Blocks that ended.
    pub block_ends: Counter<BlockEnd>,
    /// Connections to the broker that had to be made again.
    pub broker_reconnects: Counter<Connection>,
    /// Connections to the broker that are open now.
    pub broker_connections: Gauge<Connection>,
    /// Results of a task that had one already.
    pub tasks_run_twice: prometheus::IntCounter,
    /// Bytes of tasks and results held now, of all user endpoints.
    pub held_bytes: prometheus::IntGauge,
    /// Heartbeats, of the endpoint and its user endpoints.
    pub heartbeats: Counter<HeartbeatOutcome>,
    /// Credentials that are refused now.
    pub credentials_refused: Gauge<Refused>,
    /// User endpoints that run now.
    pub user_endpoints: prometheus::IntGauge,
    /// Commands of the service.
    pub commands: Counter<CommandOutcome>,
    /// Calls to the web service.
    pub service_calls: Counter<ServiceOutcome>,
    /// Requests to the Kubernetes API, for blocks.
    pub kubernetes_requests: ApiRequests,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics, all at zero. A process makes one set and shares it.
    #[must_use]
    pub fn new() -> Self {
        let r = Registry::new();
        Self {
            tasks_received: Counter::new(&r, "waypost_tasks_received_total", "Tasks that the broker delivered."),
            task_queue_wait: Seconds::new(
                &r,
                "waypost_task_queue_wait_seconds",
                "Time from a task's delivery to its start on a worker.",
                LONG,
            ),
            task_run: Seconds::new(
                &r,
                "waypost_task_run_seconds",
                "Time from a task's start on a worker to its end.",
                LONG,
            ),
            result_confirm: Seconds::new(
                &r,
                "waypost_result_confirm_seconds",
                "Time from a result's publish to the broker's confirm.",
                SHORT,
            ),
            task_results: Counter::new(&r, "waypost_task_results_total", "Tasks that ended, by how."),
            result_publishes: Counter::new(
                &r,
                "waypost_result_publishes_total",
                "Results published, by what the broker said.",
            ),
            tasks: Gauge::new(&r, "waypost_tasks", "Tasks that the agent holds."),
            blocks: Gauge::new(&r, "waypost_blocks", "Blocks, by state."),
            slots: Gauge::new(&r, "waypost_slots", "Slots of connected workers, by state."),
            blocks_waiting: Gauge::new(
                &r,
                "waypost_blocks_waiting",
                "Blocks that something keeps from running, by what it is.",
            ),
            block_ends: Counter::new(&r, "waypost_block_ends_total", "Blocks that ended, by reason."),
            broker_reconnects: Counter::new(
                &r,
                "waypost_broker_reconnects_total",
                "Connections to the broker that had to be made again.",
            ),
            broker_connections: Gauge::new(&r, "waypost_broker_connections", "Open connections to the broker."),
            tasks_run_twice: single(
                &r,
                "waypost_tasks_run_twice_total",
                "Results of a task that had one already.",
            ),
            held_bytes: single_gauge(&r, "waypost_held_bytes", "Bytes of tasks and results held."),
            heartbeats: Counter::new(
                &r,
                "waypost_heartbeats_total",
                "Heartbeats of the endpoint and its user endpoints, by whether the broker has them.",
            ),
            credentials_refused: Gauge::new(
                &r,
                "waypost_credentials_refused",
                "Credentials that are refused now, by the service or by the broker.",
            ),
            user_endpoints: single_gauge(&r, "waypost_user_endpoints", "User endpoints that run."),
            commands: Counter::new(
                &r,
                "waypost_commands_total",
                "Commands of the service, by what became of them.",
            ),
            service_calls: Counter::new(
                &r,
                "waypost_service_calls_total",
                "Calls to the web service, by outcome.",
            ),
            kubernetes_requests: ApiRequests::new(&r),
            registry: r,
        }
    }

    /// The same, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::new(Self::new())
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn scrape(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_share_takes_its_part_back() {
        let metrics = Metrics::new();
        let mut first = metrics.blocks.share();
        let mut second = metrics.blocks.share();
        first.set(BlockState::Running, 3);
        second.set(BlockState::Running, 2);
        first.set(BlockState::Running, 1);
        assert_eq!(metrics.blocks.get(BlockState::Running), 3);
        drop(second);
        assert_eq!(metrics.blocks.get(BlockState::Running), 1);
    }

    #[test]
    fn every_series_is_scraped_before_it_was_ever_touched() {
        let text = Metrics::new().scrape();
        assert!(
            text.contains("waypost_task_results_total{outcome=\"lost\"} 0"),
            "{text}"
        );
        assert!(text.contains("waypost_task_run_seconds_count 0"), "{text}");
    }
}
