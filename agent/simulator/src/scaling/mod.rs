//! Rules of scaling, compared: the engine's own against those of Parsl and of the old chart, on the same loads, with the
//! same pods, which take as long to start. Deterministic: everything is drawn from the seeds here.
//!
//! `cargo run --release -p waypost-simulator --bin compare-scaling` prints the table and writes `docs/scaling.md` and
//! `docs/scaling.svg`.

mod document;
mod engine;
mod fleet;
mod loads;
mod strategies;

use std::time::Duration;

pub use document::{page, plot};
pub use fleet::{Record, Sample};
pub use loads::{Load, loads};

use strategies::{HtexAutoScale, KubeSimple, Simple};

/// Slots of a pod.
pub(crate) const SLOTS: u32 = 4;
/// The most pods.
pub(crate) const MAX_PODS: u32 = 20;
/// How long a pod may be idle, for every rule: Globus Compute's default.
pub const MAX_IDLETIME: Duration = Duration::from_secs(120);

/// A rule of scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The engine's, as users have it.
    Waypost,
    /// The engine's with a quarter of the idle time.
    WaypostHasty,
    /// Parsl's `simple`, Globus Compute's default.
    Simple,
    /// Parsl's `htex_auto_scale`.
    HtexAutoScale,
    /// The old chart's.
    KubeSimple,
}

impl Rule {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Waypost,
        Self::WaypostHasty,
        Self::Simple,
        Self::HtexAutoScale,
        Self::KubeSimple,
    ];

    /// What the table calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waypost => "Waypost",
            Self::WaypostHasty => "Waypost, 30 s idle",
            Self::Simple => "Parsl `simple`",
            Self::HtexAutoScale => "Parsl `htex_auto_scale`",
            Self::KubeSimple => "`KubeSimpleStrategy`",
        }
    }
}

/// Plays a load under a rule.
#[must_use]
pub fn play(load: &Load, rule: Rule) -> Record {
    match rule {
        Rule::Waypost => engine::play(load, MAX_IDLETIME),
        Rule::WaypostHasty => engine::play(load, MAX_IDLETIME / 4),
        Rule::Simple => strategies::play(load, Simple::default()),
        Rule::HtexAutoScale => strategies::play(load, HtexAutoScale::default()),
        Rule::KubeSimple => strategies::play(load, KubeSimple::default()),
    }
}
