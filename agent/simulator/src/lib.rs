//! A seeded world around the real engine: a broker, a platform with blocks and workers in them, a journal and a clock,
//! all of which do what the real ones may do at their worst. First things go wrong, at odds drawn from the seed; then
//! they heal, and everything must come to its end. Checkers observe, and never steer.
//!
//! [`Options::draw`] draws a world, [`run`] plays it, and the same options always play the same.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a world looks at what concerns it, and lets the rest pass"
)]

mod actors;
mod chance;
mod checkers;
mod faults;
mod happening;
mod options;
mod play;
pub mod scaling;
mod state;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use waypost_engine::Engine;

pub use options::{FAULTS, Fault, Options};

/// How a world ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All was well.
    Passed(Report),
    /// The engine panicked, or contradicted itself.
    Crash(String),
    /// Something happened that must not.
    Safety(String),
    /// Something did not happen that must.
    Liveness(String),
}

/// What there was to see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many things happened.
    pub steps: u64,
    /// How many lives the agent had.
    pub lives: u64,
    /// How many results the broker took.
    pub results: usize,
    /// How many blocks were made.
    pub blocks: usize,
    /// How often two faults at once left no choice but to run a task again, or to publish two results.
    pub excused: u64,
    /// How often things happened that are worth knowing to have happened at all.
    pub marks: Marks,
}

/// Counts by name.
pub type Marks = std::collections::BTreeMap<&'static str, u64>;

impl Verdict {
    /// The exit code of a process that saw this last.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Passed(_) => 0,
            Self::Crash(_) => 3,
            Self::Safety(_) => 4,
            Self::Liveness(_) => 5,
        }
    }
}

/// Plays a world. `prepare` is called with every engine that is made, before its first input.
#[must_use]
pub fn run(options: &Options, prepare: &dyn Fn(&mut Engine)) -> Verdict {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(options, prepare);
        let end = world.run();
        let report = Report {
            steps: world.steps,
            lives: world.lives,
            results: world.broker.results.values().map(Vec::len).sum(),
            blocks: world.machines.len(),
            excused: world.checkers.excused,
            marks: std::mem::take(&mut world.marks),
        };
        match (world.checkers.violation, end) {
            (Some(what), _) => Verdict::Safety(what),
            (None, Err(what)) => Verdict::Liveness(what),
            (None, Ok(())) => Verdict::Passed(report),
        }
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Verdict::Crash(text.unwrap_or_else(|| "a panic without words".into()))
    })
}

/// A line of the trace.
#[expect(clippy::print_stdout, reason = "the trace is what the user asked for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
