//! Every metric of the agent: its name, help and labels stand here and nowhere else.
//!
//! Label values are closed enums, never ids, so the number of series is bounded. `docs/metrics.md` lists the same
//! table for people, and a test compares the two.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// A closed set of values of one label.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of the documentation.
    const ALL: &'static [Self];
    /// The value as it is scraped.
    fn value(self) -> &'static str;
}

macro_rules! label {
    ($(#[$about:meta])* $type:ident as $name:literal { $($(#[$note:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[$note])* $variant,)+ }

        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

// It uses the macro, so it stands below it.
mod kubernetes;
pub use kubernetes::{ApiOutcome, ApiRequests, ApiResource, ApiVerb};

label! {
    /// Whether the broker had delivered a task before.
    DeliveryKind as "delivery" {
        /// For the first time.
        First = "first",
        /// Once more.
        Redelivered = "redelivered",
    }
}
label! {
    /// How a task ended.
    TaskOutcome as "outcome" {
        /// The function returned.
        Success = "success",
        /// The function raised, timed out, or its result was too large.
        Failed = "failed",
        /// Its executor or worker died under it.
        Lost = "lost",
        /// It was never started: not allowed, or not a task.
        Refused = "refused",
    }
}
label! {
    /// What the broker said to a published result.
    Publish as "outcome" {
        /// It is safe.
        Confirmed = "confirmed",
        /// No queue is bound.
        Returned = "returned",
        /// The broker would not have it.
        Nacked = "nacked",
        /// The channel was lost before the answer.
        Unknown = "unknown",
    }
}
label! {
    /// Where a task is that the agent holds.
    TaskState as "state" {
        /// Delivered, not started.
        Waiting = "waiting",
        /// Given to a worker.
        Running = "running",
        /// Its result waits for the broker's confirm.
        Finished = "finished",
    }
}
label! {
    /// The life of a block.
    BlockState as "state" {
        /// Asked for; its worker has not said hello.
        Starting = "starting",
        /// Its worker is connected.
        Running = "running",
        /// Its worker is silent.
        Lost = "lost",
        /// It takes no more tasks.
        Draining = "draining",
    }
}
label! {
    /// What keeps a block from running.
    BlockWait as "cause" {
        /// No node has room for it, or suits it.
        Scheduling = "scheduling",
        /// Its image can not be pulled.
        Image = "image",
        /// It can not work as it is configured.
        Misconfigured = "misconfigured",
        /// Anything else.
        Other = "other",
    }
}
label! {
    /// Why a block ended.
    BlockEnd as "reason" {
        /// The endpoint ended it: it was idle, or the endpoint was stopped.
        Released = "released",
        /// Its worker ended by itself, and well.
        Completed = "completed",
        /// It ended by itself with an error or a signal.
        Crashed = "crashed",
        /// It was killed for its use of memory.
        OutOfMemory = "out_of_memory",
        /// Its node had not enough of something.
        Evicted = "evicted",
        /// Its node was drained.
        Drained = "drained",
        /// It made room for something of a higher priority.
        Preempted = "preempted",
        /// Its node is gone.
        NodeLost = "node_lost",
        /// Somebody deleted it.
        Deleted = "deleted",
        /// It could not be started, and may be later.
        CannotStart = "cannot_start",
        /// The platform refused it, and would again.
        Rejected = "rejected",
        /// No node took it in time.
        Unschedulable = "unschedulable",
        /// Its image could not be pulled in time.
        ImageNotPulled = "image_not_pulled",
        /// It could not work as it was configured.
        Misconfigured = "misconfigured",
        /// It did not run in time.
        CreationTimeout = "creation_timeout",
        /// It ran, and its worker never said hello.
        NotRegistered = "not_registered",
        /// Nobody knows.
        Unknown = "unknown",
    }
}
label! {
    /// What a slot does.
    SlotState as "state" {
        /// It runs a task.
        Busy = "busy",
        /// It waits for one.
        Idle = "idle",
    }
}
label! {
    /// What a connection to the broker is for.
    Connection as "connection" {
        /// Tasks in, acknowledgements out.
        Tasks = "tasks",
        /// Results out.
        Results = "results",
        /// Heartbeats out.
        Heartbeats = "heartbeats",
        /// Commands in.
        Commands = "commands",
    }
}
label! {
    /// What became of a command.
    CommandOutcome as "outcome" {
        /// A user endpoint was started.
        Started = "started",
        /// A running user endpoint was given new credentials.
        Refreshed = "refreshed",
        /// It came from a stranger, from the future, or was not understood.
        Refused = "refused",
        /// Its template, schema or configuration did not pass.
        Invalid = "invalid",
    }
}
label! {
    /// How a call to the web service ended.
    ServiceOutcome as "outcome" {
        /// It answered as asked.
        Success = "success",
        /// It refused (4xx).
        Refused = "refused",
        /// It failed (5xx).
        Failed = "failed",
        /// It could not be reached.
        Unreachable = "unreachable",
    }
}

/// A counter with one label.
#[derive(Clone)]
pub struct Counter<L> {
    vector: IntCounterVec,
    label: PhantomData<L>,
}

impl<L: Label> Counter<L> {
    fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let vector = IntCounterVec::new(Opts::new(name, help), &[L::NAME]).expect("metric names and labels are fixed");
        for label in L::ALL {
            vector.with_label_values(&[label.value()]);
        }
        register(registry, &vector);
        Self {
            vector,
            label: PhantomData,
        }
    }

    /// Counts one.
    pub fn increment(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts several.
    pub fn add(&self, label: L, count: u64) {
        self.vector.with_label_values(&[label.value()]).inc_by(count);
    }

    /// The present count.
    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.vector.with_label_values(&[label.value()]).get()
    }
}

/// A gauge with one label, to which each user endpoint adds its part through a [`Share`].
#[derive(Clone)]
pub struct Gauge<L> {
    vector: IntGaugeVec,
    label: PhantomData<L>,
}

impl<L: Label> Gauge<L> {
    fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let vector = IntGaugeVec::new(Opts::new(name, help), &[L::NAME]).expect("metric names and labels are fixed");
        for label in L::ALL {
            vector.with_label_values(&[label.value()]);
        }
        register(registry, &vector);
        Self {
            vector,
            label: PhantomData,
        }
    }

    /// A part of this gauge that one owner sets; it is taken back when the share is dropped.
    #[must_use]
    pub fn share(&self) -> Share<L> {
        Share {
            gauge: self.clone(),
            parts: vec![0; L::ALL.len()],
        }
    }

    /// The sum of all shares.
    #[must_use]
    pub fn get(&self, label: L) -> i64 {
        self.vector.with_label_values(&[label.value()]).get()
    }
}

/// One owner's part of a [`Gauge`].
pub struct Share<L: Label> {
    gauge: Gauge<L>,
    parts: Vec<i64>,
}

impl<L: Label + PartialEq> Share<L> {
    /// Sets this owner's part.
    pub fn set(&mut self, label: L, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let Some(index) = L::ALL.iter().position(|other| *other == label) else {
            return;
        };
        let before = std::mem::replace(&mut self.parts[index], value);
        if before != value {
            self.gauge
                .vector
                .with_label_values(&[label.value()])
                .add(value - before);
        }
    }
}

impl<L: Label> Drop for Share<L> {
    fn drop(&mut self) {
        for (label, part) in L::ALL.iter().zip(&self.parts) {
            self.gauge.vector.with_label_values(&[label.value()]).sub(*part);
        }
    }
}

/// A histogram of seconds.
#[derive(Clone)]
pub struct Seconds {
    histogram: prometheus::Histogram,
}

impl Seconds {
    fn new(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Self {
        let vector = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[])
            .expect("metric names are fixed");
        register(registry, &vector);
        Self {
            histogram: vector.with_label_values::<&str>(&[]),
        }
    }

    /// Records a time.
    pub fn observe(&self, time: std::time::Duration) {
        self.histogram.observe(time.as_secs_f64());
    }

    /// How many times were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.get_sample_count()
    }
}

fn register(registry: &Registry, collector: &(impl Collector + Clone + 'static)) {
    registry
        .register(Box::new(collector.clone()))
        .expect("every metric has a name of its own");
}

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

fn single(registry: &Registry, name: &str, help: &str) -> prometheus::IntCounter {
    let counter = prometheus::IntCounter::new(name, help).expect("metric names are fixed");
    register(registry, &counter);
    counter
}

fn single_gauge(registry: &Registry, name: &str, help: &str) -> prometheus::IntGauge {
    let gauge = prometheus::IntGauge::new(name, help).expect("metric names are fixed");
    register(registry, &gauge);
    gauge
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
