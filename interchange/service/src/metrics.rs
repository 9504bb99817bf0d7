//! Every metric of the interchange: name, meaning and labels. Label values are closed sets, never ids, and every series
//! but those by route is there from the start. `docs/interchange-metrics.md` has a row for each, which a test compares
//! with a real scrape.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::clock::Milliseconds;

/// Why a result was dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dropped {
    /// It can't be read.
    Malformed,
    /// No such task.
    UnknownTask,
    /// The task was sent to another endpoint.
    ForeignTask,
    /// The task has a result.
    Duplicate,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Malformed, Self::UnknownTask, Self::ForeignTask, Self::Duplicate];

    const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownTask => "unknown_task",
            Self::ForeignTask => "foreign_task",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Why a heartbeat was dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DroppedHeartbeat {
    /// It can't be read.
    Malformed,
    /// It names another endpoint than its sender.
    ForeignEndpoint,
    /// No such endpoint.
    UnknownEndpoint,
}

impl DroppedHeartbeat {
    const ALL: [Self; 3] = [Self::Malformed, Self::ForeignEndpoint, Self::UnknownEndpoint];

    const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ForeignEndpoint => "foreign_endpoint",
            Self::UnknownEndpoint => "unknown_endpoint",
        }
    }
}

/// What came of an attempt to sign in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SignInOutcome {
    /// Name and password were right.
    SignedIn,
    /// One of them was wrong.
    Wrong,
    /// It came too early after others that failed, and was not looked at.
    TooEarly,
}

impl SignInOutcome {
    const ALL: [Self; 3] = [Self::SignedIn, Self::Wrong, Self::TooEarly];

    const fn label(self) -> &'static str {
        match self {
            Self::SignedIn => "signed_in",
            Self::Wrong => "wrong",
            Self::TooEarly => "too_early",
        }
    }
}

/// What housekeeping removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cleaned {
    /// An access token that was over.
    Token,
    /// A refresh token that was not used for long, an old authorization code or attempt to sign in.
    SignIn,
    /// A task with its result.
    Task,
    /// A task group without tasks.
    TaskGroup,
    /// What a deleted endpoint had on the broker.
    Endpoint,
    /// The broker user of a revoked client, or of its endpoint.
    BrokerUser,
    /// A result queue that nobody used any more.
    ResultQueue,
}

impl Cleaned {
    const ALL: [Self; 7] = [
        Self::Token,
        Self::SignIn,
        Self::Task,
        Self::TaskGroup,
        Self::Endpoint,
        Self::BrokerUser,
        Self::ResultQueue,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SignIn => "sign_in",
            Self::Task => "task",
            Self::TaskGroup => "task_group",
            Self::Endpoint => "endpoint",
            Self::BrokerUser => "broker_user",
            Self::ResultQueue => "result_queue",
        }
    }
}

const SUCCESS: &str = "success";
const FAILED: &str = "failed";

/// The metrics, and the registry that gives them out.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) request_seconds: HistogramVec,
    pub(crate) tasks_submitted: IntCounter,
    pub(crate) tasks_published: IntCounter,
    pub(crate) publish_seconds: Histogram,
    pub(crate) outbox: IntGauge,
    pub(crate) outbox_recovered: IntCounter,
    results: IntCounterVec,
    task_seconds: Histogram,
    pub(crate) result_batch_seconds: Histogram,
    pub(crate) results_forwarded: IntCounter,
    results_dropped: IntCounterVec,
    pub(crate) heartbeats: IntCounter,
    heartbeats_dropped: IntCounterVec,
    pub(crate) start_commands: IntCounter,
    pub(crate) broker_connected: IntGauge,
    pub(crate) broker_reconnects: IntCounter,
    cleaned: IntCounterVec,
    sign_ins: IntCounterVec,
}

/// Makes and registers metrics; the first failure is kept, so that the table below reads as one.
struct Maker {
    registry: Registry,
    failure: Option<prometheus::Error>,
}

impl Maker {
    fn keep<T: prometheus::core::Collector + Clone + 'static>(&mut self, made: prometheus::Result<T>) -> Option<T> {
        let registered = made.and_then(|metric| {
            self.registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        });
        registered.map_err(|error| self.failure = Some(error)).ok()
    }

    fn counter(&mut self, name: &str, help: &str) -> Option<IntCounter> {
        self.keep(IntCounter::new(format!("waypost_interchange_{name}"), help))
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> Option<IntCounterVec> {
        self.keep(IntCounterVec::new(
            Opts::new(format!("waypost_interchange_{name}"), help),
            labels,
        ))
    }

    fn gauge(&mut self, name: &str, help: &str) -> Option<IntGauge> {
        self.keep(IntGauge::new(format!("waypost_interchange_{name}"), help))
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Option<Histogram> {
        let options = HistogramOpts::new(format!("waypost_interchange_{name}"), help).buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(options))
    }
}

const FAST: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
const SLOW: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 86_400.0,
];

impl Metrics {
    /// Makes them all, at zero.
    ///
    /// # Errors
    /// Two metrics have the same name.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let mut make = Maker {
            registry: Registry::new(),
            failure: None,
        };
        let metrics = Self::table(&mut make);
        match (metrics, make.failure) {
            (Some(metrics), _) => {
                metrics.begin_series();
                Ok(metrics)
            }
            (None, failure) => Err(failure.unwrap_or_else(|| prometheus::Error::Msg("no metrics".to_owned()))),
        }
    }

    /// Makes every series whose labels are known, so that a rate is right from the first event on.
    fn begin_series(&self) {
        for outcome in [SUCCESS, FAILED] {
            self.results.with_label_values(&[outcome]);
        }
        for reason in Dropped::ALL {
            self.results_dropped.with_label_values(&[reason.label()]);
        }
        for reason in DroppedHeartbeat::ALL {
            self.heartbeats_dropped.with_label_values(&[reason.label()]);
        }
        for kind in Cleaned::ALL {
            self.cleaned.with_label_values(&[kind.label()]);
        }
        for outcome in SignInOutcome::ALL {
            self.sign_ins.with_label_values(&[outcome.label()]);
        }
    }

    fn table(make: &mut Maker) -> Option<Self> {
        let request_seconds = HistogramOpts::new(
            "waypost_interchange_request_seconds",
            "Time to answer a call, by route.",
        )
        .buckets(FAST.to_vec());
        Some(Self {
            requests: make.counters(
                "requests_total",
                "Calls answered, by route, method and status.",
                &["route", "method", "status"],
            )?,
            request_seconds: make.keep(HistogramVec::new(request_seconds, &["route"]))?,
            tasks_submitted: make.counter("tasks_submitted_total", "Tasks accepted.")?,
            tasks_published: make.counter("tasks_published_total", "Tasks that the broker has confirmed.")?,
            publish_seconds: make.histogram(
                "publish_seconds",
                "Time from publishing tasks to their confirms, a submit at a time.",
                FAST,
            )?,
            outbox: make.gauge(
                "outbox_tasks",
                "Tasks accepted and not confirmed by the broker, at all replicas.",
            )?,
            outbox_recovered: make.counter(
                "outbox_recovered_total",
                "Tasks published from the outbox after a fault.",
            )?,
            results: make.counters("results_total", "First results of tasks, by outcome.", &["outcome"])?,
            task_seconds: make.histogram("task_seconds", "Time from accepting a task to its result.", SLOW)?,
            result_batch_seconds: make.histogram(
                "result_batch_seconds",
                "Time to store and forward a batch of results.",
                FAST,
            )?,
            results_forwarded: make.counter("results_forwarded_total", "Results confirmed on a client's queue.")?,
            results_dropped: make.counters("results_dropped_total", "Results dropped, by reason.", &["reason"])?,
            heartbeats: make.counter("heartbeats_total", "Heartbeats taken in.")?,
            heartbeats_dropped: make.counters(
                "heartbeats_dropped_total",
                "Heartbeats dropped, by reason.",
                &["reason"],
            )?,
            start_commands: make.counter("start_commands_total", "Start commands sent to template endpoints.")?,
            broker_connected: make.gauge("broker_connected", "1 while there is a connection to the broker.")?,
            broker_reconnects: make.counter(
                "broker_reconnects_total",
                "Attempts to connect to the broker after the first.",
            )?,
            cleaned: make.counters(
                "cleaned_total",
                "Things removed because they were no longer needed, by kind.",
                &["kind"],
            )?,
            sign_ins: make.counters(
                "sign_ins_total",
                "Attempts of users to sign in, by outcome.",
                &["outcome"],
            )?,
            registry: make.registry.clone(),
        })
    }

    /// Counts a dropped result.
    pub(crate) fn dropped(&self, reason: Dropped) {
        self.results_dropped.with_label_values(&[reason.label()]).inc();
    }

    /// Counts a dropped heartbeat.
    pub(crate) fn heartbeat_dropped(&self, reason: DroppedHeartbeat) {
        self.heartbeats_dropped.with_label_values(&[reason.label()]).inc();
    }

    /// Counts an attempt to sign in.
    pub(crate) fn sign_in(&self, outcome: SignInOutcome) {
        self.sign_ins.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts what housekeeping removed.
    pub(crate) fn cleaned(&self, kind: Cleaned, number: u64) {
        self.cleaned.with_label_values(&[kind.label()]).inc_by(number);
    }

    /// Counts a task's first result.
    #[expect(clippy::cast_precision_loss, reason = "a duration in milliseconds is far below 2^52")]
    pub(crate) fn result(&self, failed: bool, after: Milliseconds) {
        let outcome = if failed { FAILED } else { SUCCESS };
        self.results.with_label_values(&[outcome]).inc();
        self.task_seconds.observe(after as f64 / 1000.0);
    }

    /// All metrics in Prometheus's text form.
    pub(crate) fn text(&self) -> String {
        let mut buffer = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::error!(%error, "metrics can't be written");
        }
        String::from_utf8(buffer).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics.dropped(Dropped::ForeignTask);
        assert!(
            metrics
                .text()
                .contains("waypost_interchange_results_dropped_total{reason=\"foreign_task\"} 1")
        );
    }
}
