//! Counters, gauges and histograms whose labels are closed sets.

use std::marker::PhantomData;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Label;

/// A counter with one label.
#[derive(Clone)]
pub struct Counter<L> {
    vector: IntCounterVec,
    label: PhantomData<L>,
}

impl<L: Label> Counter<L> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let vector = IntCounterVec::new(Opts::new(name, help), &[L::NAME]);
        Self {
            vector: labelled::<L, _>(registry, vector),
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
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let vector = IntGaugeVec::new(Opts::new(name, help), &[L::NAME]);
        Self {
            vector: labelled::<L, _>(registry, vector),
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
    pub(super) fn new(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Self {
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

/// Registers a vector with one label, each value of which is there from the start.
fn labelled<L: Label, B>(registry: &Registry, vector: prometheus::Result<MetricVec<B>>) -> MetricVec<B>
where
    B: MetricVecBuilder,
    MetricVec<B>: Collector + 'static,
{
    let vector = vector.expect("metric names and labels are fixed");
    for label in L::ALL {
        vector.with_label_values(&[label.value()]);
    }
    register(registry, &vector);
    vector
}

pub(super) fn register(registry: &Registry, collector: &(impl Collector + Clone + 'static)) {
    registry
        .register(Box::new(collector.clone()))
        .expect("every metric has a name of its own");
}

/// A counter without a label.
pub(super) fn single(registry: &Registry, name: &str, help: &str) -> prometheus::IntCounter {
    let counter = prometheus::IntCounter::new(name, help).expect("metric names are fixed");
    register(registry, &counter);
    counter
}

/// A gauge without a label.
pub(super) fn single_gauge(registry: &Registry, name: &str, help: &str) -> prometheus::IntGauge {
    let gauge = prometheus::IntGauge::new(name, help).expect("metric names are fixed");
    register(registry, &gauge);
    gauge
}
