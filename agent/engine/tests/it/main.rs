//! The engine's tests: one file per concern, driven by hand.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test may look at the clock, run cargo, and skip what it does not look at"
)]

mod arbitrary;
mod blocks;
mod dependencies;
mod drain;
mod fence;
mod launch;
mod life;
mod pace;
mod recorder;
mod restart;
mod speed;
mod window;
