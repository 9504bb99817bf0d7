//! How many blocks there should be: decided on every change, not on a tick.
//!
//! Wanted are as many slots as there are outstanding tasks times `parallelism`, in whole blocks, between `min_blocks`
//! (which are kept) and `max_blocks` (of what exists, those that are ending included). More are started only so many at
//! a time, and after failures ever later; one is ended if it had nothing to do for `max_idletime` and is not wanted, the
//! longest idle first, never one that has a task or an unsettled result.

use crate::state::block::Phase;
use crate::state::random::Random;
use crate::{BlockEnd, BlockId, Scaling, Time};

/// What scaling remembers.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    next_number: u32,
    /// The `init_blocks` were started once.
    initial_reached: bool,
    /// Starts that failed since a block last proved itself.
    failures: u32,
    /// Nothing is started before this.
    not_before: Option<Time>,
}

/// How many blocks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    /// That count towards what is wanted.
    pub(crate) live: u32,
    /// That exist or may exist.
    pub(crate) existing: u32,
    /// Whose workers have not said hello.
    pub(crate) starting: u32,
}

/// How many blocks are wanted for so many outstanding tasks.
pub(crate) fn wanted_blocks(scaling: &Scaling, slots_per_block: u32, outstanding: u64) -> u32 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let slots = outstanding as f64 * scaling.parallelism.clamp(0.0, 1.0);
    let blocks = (slots / f64::from(slots_per_block.max(1))).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, as it should"
    )]
    let blocks = blocks as u32;
    // With a parallelism of 0 a task still needs somewhere to run.
    let some = u32::from(outstanding > 0);
    blocks.max(some).max(scaling.min_blocks).min(scaling.max_blocks)
}

impl Scaler {
    /// How many more blocks to start now.
    pub(crate) fn missing(&mut self, scaling: &Scaling, wanted: u32, census: Census, now: Time) -> u32 {
        let wanted = if self.initial_reached {
            wanted
        } else {
            wanted.max(scaling.init_blocks.min(scaling.max_blocks))
        };
        self.initial_reached |= census.live >= scaling.init_blocks.min(scaling.max_blocks);
        if self.not_before.is_some_and(|at| at > now) {
            return 0;
        }
        let short = wanted.saturating_sub(census.live);
        let room = scaling.max_blocks.saturating_sub(census.existing);
        // After a failure one start is enough to see whether it is over.
        let in_flight = if self.failures > 0 {
            1
        } else {
            scaling.starts_in_flight.max(1)
        };
        short.min(room).min(in_flight.saturating_sub(census.starting))
    }

    /// The name of the next block.
    pub(crate) fn name(&mut self, epoch: u64) -> BlockId {
        let number = self.next_number;
        self.next_number += 1;
        BlockId { epoch, number }
    }

    /// Never gives this name, which is taken.
    pub(crate) fn reserve(&mut self, block: BlockId, epoch: u64) {
        if block.epoch == epoch {
            self.next_number = self.next_number.max(block.number.saturating_add(1));
        }
    }

    /// A start failed: how many did in a row, and when the next may be tried.
    pub(crate) fn failed(&mut self, scaling: &Scaling, random: &mut Random, now: Time) -> (u32, Time) {
        let pause = random.back_off(self.failures, scaling.start_back_off_min, scaling.start_back_off_max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        (self.failures, now + pause)
    }

    /// A worker said hello: the pause is over, though not forgotten before the block has proved itself.
    pub(crate) const fn answered(&mut self) {
        self.not_before = None;
    }

    /// A block ran a task to its end, or stood for a while.
    pub(crate) const fn proven(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// When starts are possible again, if they are not now.
    pub(crate) fn paused_until(&self, now: Time) -> Option<Time> {
        self.not_before.filter(|at| *at > now)
    }
}

/// Whether an end that nobody asked for counts as a start that failed: blocks that end one after the other must not be
/// started one after the other.
pub(crate) fn is_start_failure(phase: Phase, draining: bool, proven: bool) -> bool {
    match phase {
        Phase::Starting => true,
        Phase::Up | Phase::Silent { .. } | Phase::GivenUp { .. } => !draining && !proven,
        Phase::Draining | Phase::Deleting => false,
    }
}

/// A failure to start, in short: for what the waiting tasks are told.
pub(crate) fn gives_up(scaling: &Scaling, failures: u32, up: u32) -> bool {
    scaling.start_failures_max > 0 && failures >= scaling.start_failures_max && up == 0
}

/// An end of which nothing is known but that the worker never said hello.
pub(crate) fn not_registered(scaling: &Scaling) -> BlockEnd {
    let message = format!(
        "its worker did not say hello within {} s",
        scaling.creation_timeout.as_secs()
    );
    BlockEnd::new(crate::BlockEndKind::NotRegistered, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn scaling() -> Scaling {
        Scaling {
            init_blocks: 0,
            max_blocks: 10,
            ..Scaling::default()
        }
    }

    fn census(live: u32) -> Census {
        Census {
            live,
            existing: live,
            starting: 0,
        }
    }

    #[test]
    fn wanted_blocks_follow_outstanding_tasks_between_the_bounds() {
        let scaling = Scaling {
            min_blocks: 2,
            parallelism: 0.5,
            ..scaling()
        };
        for (outstanding, wanted) in [(0, 2), (8, 2), (16, 2), (17, 3), (25, 4), (1_000_000, 10)] {
            assert_eq!(wanted_blocks(&scaling, 4, outstanding), wanted, "{outstanding}");
        }
    }

    #[test]
    fn without_parallelism_a_task_still_gets_one_block() {
        let scaling = Scaling {
            parallelism: 0.0,
            ..scaling()
        };
        assert_eq!(wanted_blocks(&scaling, 4, 100), 1);
        assert_eq!(wanted_blocks(&scaling, 4, 0), 0);
    }

    #[test]
    fn starts_in_flight_and_existing_blocks_bound_what_is_started() {
        let (scaling, now) = (
            Scaling {
                starts_in_flight: 3,
                ..scaling()
            },
            Time::default(),
        );
        let mut scaler = Scaler::default();
        assert_eq!(scaler.missing(&scaling, 8, census(0), now), 3);
        assert_eq!(
            scaler.missing(
                &scaling,
                8,
                Census {
                    starting: 2,
                    ..census(2)
                },
                now
            ),
            1
        );
        assert_eq!(
            scaler.missing(
                &scaling,
                8,
                Census {
                    live: 7,
                    existing: 10,
                    starting: 0
                },
                now
            ),
            0
        );
    }

    #[test]
    fn init_blocks_are_wanted_until_they_were_there_once() {
        let (scaling, now) = (
            Scaling {
                init_blocks: 2,
                ..scaling()
            },
            Time::default(),
        );
        let mut scaler = Scaler::default();
        assert_eq!(scaler.missing(&scaling, 0, census(0), now), 2);
        assert_eq!(scaler.missing(&scaling, 0, census(2), now), 0);
        assert_eq!(scaler.missing(&scaling, 0, census(0), now), 0);
    }

    #[test]
    fn failures_pause_starts_longer_each_time_and_then_try_one() {
        let (scaling, mut now, mut random) = (scaling(), Time::default(), Random::new(3));
        let mut scaler = Scaler::default();
        for (failures, least) in [(1, 500), (2, 1000), (3, 2000)] {
            let (count, until) = scaler.failed(&scaling, &mut random, now);
            assert_eq!(count, failures);
            assert!(until.since(now) >= Duration::from_millis(least));
            assert_eq!(scaler.missing(&scaling, 5, census(0), now), 0);
            now = until;
            assert_eq!(scaler.missing(&scaling, 5, census(0), now), 1);
        }
        scaler.proven();
        assert_eq!(scaler.missing(&scaling, 5, census(0), now), 5);
    }

    #[test]
    fn names_are_never_given_twice() {
        let mut scaler = Scaler::default();
        scaler.reserve(BlockId { epoch: 7, number: 4 }, 7);
        scaler.reserve(BlockId { epoch: 6, number: 9 }, 7);
        assert_eq!(scaler.name(7).number, 5);
        assert_eq!(scaler.name(7).number, 6);
    }
}
