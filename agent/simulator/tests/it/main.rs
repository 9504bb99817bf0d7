//! The simulator's own tests: that the engine stands a thousand seeds, and that the checkers would see it if it did not.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever is not expected fails the test")]

mod mutations;
mod restarts;
mod scaling;
mod seeds;
mod two_agents;
