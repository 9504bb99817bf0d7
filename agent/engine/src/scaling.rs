//! How many blocks there should be: decided on every change, not on a tick.
//!
//! Wanted are as many slots as there are outstanding tasks times `parallelism`, in whole blocks, and `min_idle_blocks`
//! beyond that, between `min_blocks` (which are kept) and `max_blocks` (of what exists, those that are ending included).
//! What the slots in hand take before another block could come up is no reason to start one ([`crate::state::pace`]).
//! More are started only so many at a time: a few until one has come up, which shows that image and options are right,
//! then many, and after a failure one, ever later. One is ended if it had nothing to do for `max_idletime` and is not
//! wanted, the longest idle first, never one that has a task or an unsettled result; one that still waits for a node or
//! its image is withdrawn before that.

use crate::state::block::Phase;
use crate::state::random::Random;
use crate::{BlockEnd, BlockEndKind, BlockId, OnUnschedulable, Scaling, Time};

/// What scaling remembers.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    next_number: u32,
    /// In the names that are given.
    epoch: u64,
    /// The `init_blocks` were started once.
    initial_reached: bool,
    /// A block came up since a start last failed.
    came_up: bool,
    failing: Failing,
    /// Since when there have been more blocks than are wanted.
    surplus_since: Option<Time>,
}

/// Starts that failed since a block last proved itself.
#[derive(Debug, Default)]
struct Failing {
    count: u32,
    /// Of blocks that were started after another had failed: what was started at once and fails at once counts once.
    rounds: u32,
    since: Option<Time>,
    /// The number of the first block that was not yet started when the last one failed. Times would not tell what was
    /// started before that from what was started because of it.
    next_number: Option<u32>,
    end: Option<BlockEnd>,
    /// Nothing is started before this.
    not_before: Option<Time>,
    /// The waiting tasks were told.
    told: bool,
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
    /// Nothing comes up, and the last words of a block that did not are awaited.
    pub(crate) awaits_words: bool,
}

/// How many blocks are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) blocks: u32,
    /// There would be more if `max_blocks` allowed it.
    pub(crate) bounded: bool,
}

/// How many blocks are wanted for so many outstanding tasks.
pub(crate) fn wanted_blocks(scaling: &Scaling, slots_per_block: u32, outstanding: u64) -> Wanted {
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
    let all = blocks
        .max(some)
        .saturating_add(scaling.min_idle_blocks)
        .max(scaling.min_blocks);
    Wanted {
        blocks: all.min(scaling.max_blocks),
        bounded: all > scaling.max_blocks,
    }
}

impl Scaler {
    /// One whose blocks have this epoch in their names.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// What is wanted, and the `init_blocks` until they were there once.
    pub(crate) fn with_initial(&mut self, scaling: &Scaling, wanted: u32, live: u32) -> u32 {
        let initial = scaling.init_blocks.min(scaling.max_blocks);
        self.initial_reached |= live >= initial;
        if self.initial_reached {
            wanted
        } else {
            wanted.max(initial)
        }
    }

    /// How many more blocks to start now.
    pub(crate) fn missing(&self, scaling: &Scaling, wanted: u32, census: Census, now: Time) -> u32 {
        if self.paused_until(now).is_some() || census.awaits_words {
            return 0;
        }
        let short = wanted.saturating_sub(census.live);
        let room = scaling.max_blocks.saturating_sub(census.existing);
        // After a failure one start is enough to see whether it is over.
        let in_flight = if self.failing.count > 0 {
            1
        } else if self.came_up {
            scaling.starts_in_flight_max.max(scaling.starts_in_flight).max(1)
        } else {
            scaling.starts_in_flight.max(1)
        };
        short.min(room).min(in_flight.saturating_sub(census.starting))
    }

    /// The name of the next block.
    pub(crate) fn next_name(&mut self) -> BlockId {
        let number = self.next_number;
        self.next_number += 1;
        BlockId {
            epoch: self.epoch,
            number,
        }
    }

    /// Never gives this name, which is taken.
    pub(crate) fn reserve(&mut self, block: BlockId) {
        if block.epoch == self.epoch {
            self.next_number = self.next_number.max(block.number.saturating_add(1));
        }
    }

    /// A block failed to come up: how many did in a row, and when the next may be tried.
    pub(crate) fn failed(
        &mut self,
        scaling: &Scaling,
        random: &mut Random,
        block: BlockId,
        end: BlockEnd,
        now: Time,
    ) -> (u32, Time) {
        let same_round = !self.is_after_failure(block);
        let failing = &mut self.failing;
        self.came_up = false;
        failing.count = failing.count.saturating_add(1);
        failing.since.get_or_insert(now);
        failing.end = Some(end);
        failing.next_number = Some(self.next_number);
        let until = match failing.not_before {
            Some(until) if same_round => until,
            Some(_) | None => {
                let pause = random.back_off(failing.rounds, scaling.start_back_off_min, scaling.start_back_off_max);
                failing.rounds = failing.rounds.saturating_add(1);
                now + pause
            }
        };
        failing.not_before = Some(until);
        (failing.count, until)
    }

    /// Whether a block was started after the last failure. Those of other lives were before.
    fn is_after_failure(&self, block: BlockId) -> bool {
        let own = |next| block.epoch == self.epoch && block.number >= next;
        self.failing.next_number.is_none_or(own)
    }

    /// Whether the tasks that wait for a block should be told why there is none, if nothing else comes up.
    pub(crate) fn gives_up(&self, scaling: &Scaling, now: Time) -> bool {
        let Some(end) = &self.failing.end else { return false };
        match end.kind {
            // It had all the time that it was to have, or no time would do.
            BlockEndKind::Unschedulable
            | BlockEndKind::ImageNotPulled
            | BlockEndKind::Misconfigured
            | BlockEndKind::Rejected
            | BlockEndKind::CreationTimeout
            | BlockEndKind::NotRegistered => true,
            // The platform is away or has no room: that may change, as with a block that it took and can not place.
            BlockEndKind::CannotStart => {
                let since = self.failing.since.unwrap_or(now);
                scaling.on_unschedulable == OnUnschedulable::Fail && now.since(since) >= scaling.scheduling_timeout
            }
            BlockEndKind::Completed
            | BlockEndKind::Crashed
            | BlockEndKind::OutOfMemory
            | BlockEndKind::Evicted
            | BlockEndKind::Drained
            | BlockEndKind::Preempted
            | BlockEndKind::NodeLost
            | BlockEndKind::Deleted
            | BlockEndKind::Unknown => {
                scaling.start_failures_max > 0 && self.failing.count >= scaling.start_failures_max
            }
        }
    }

    /// The waiting tasks are being told; true if it is the first time since blocks last started.
    pub(crate) const fn open_circuit(&mut self) -> bool {
        !std::mem::replace(&mut self.failing.told, true)
    }

    /// A worker said hello: for the first time, in the block `started`, or again. The pause is over if that was started
    /// after the last failure, though not forgotten before the block has proved itself. True if this ends a time in which
    /// tasks were told that no block starts.
    pub(crate) fn came_up(&mut self, started: Option<BlockId>) -> bool {
        if let Some(started) = started {
            self.came_up = true;
            if self.is_after_failure(started) {
                self.failing.not_before = None;
            }
        }
        std::mem::replace(&mut self.failing.told, false)
    }

    /// A block ran a task to its end, or stood for a while. What was started before others failed says nothing of those.
    pub(crate) fn proven(&mut self, block: BlockId) {
        if self.is_after_failure(block) {
            self.failing = Failing::default();
        }
    }

    /// Makes as if no start had ever failed: a mistake.
    pub(crate) const fn forget_pause(&mut self) {
        self.failing.not_before = None;
    }

    /// When starts are possible again, if they are not now.
    pub(crate) fn paused_until(&self, now: Time) -> Option<Time> {
        self.failing.not_before.filter(|at| *at > now)
    }

    /// How many starts failed in a row, and how the last one did.
    pub(crate) const fn failures(&self) -> (u32, Option<&BlockEnd>) {
        (self.failing.count, self.failing.end.as_ref())
    }

    /// Waiting tasks were told that no block starts, and none has since.
    pub(crate) const fn is_open(&self) -> bool {
        self.failing.told
    }

    /// There are more blocks than are wanted: since when.
    pub(crate) fn surplus(&mut self, now: Time) -> Time {
        *self.surplus_since.get_or_insert(now)
    }

    /// There are no more blocks than are wanted.
    pub(crate) const fn no_surplus(&mut self) {
        self.surplus_since = None;
    }
}

/// Whether an end that we did not bring about counts as a start that failed: blocks that end one after the other must
/// not be started one after the other.
pub(crate) fn is_start_failure(phase: Phase, proven: bool) -> bool {
    match phase {
        Phase::Starting => true,
        Phase::Up | Phase::Silent { .. } | Phase::GivenUp { .. } => !proven,
        Phase::Draining | Phase::Deleting => false,
    }
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
            awaits_words: false,
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
            assert_eq!(wanted_blocks(&scaling, 4, outstanding).blocks, wanted, "{outstanding}");
        }
    }

    #[test]
    fn without_parallelism_a_task_still_gets_one_block() {
        let scaling = Scaling {
            parallelism: 0.0,
            ..scaling()
        };
        assert_eq!(wanted_blocks(&scaling, 4, 100).blocks, 1);
        assert_eq!(wanted_blocks(&scaling, 4, 0).blocks, 0);
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
        let scaler = Scaler::new(7);
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
                    existing: 10,
                    ..census(7)
                },
                now
            ),
            0
        );
    }

    #[test]
    fn init_blocks_are_wanted_until_they_were_there_once() {
        let scaling = Scaling {
            init_blocks: 2,
            ..scaling()
        };
        let mut scaler = Scaler::new(7);
        assert_eq!(scaler.with_initial(&scaling, 0, 0), 2);
        assert_eq!(scaler.with_initial(&scaling, 0, 2), 0);
        assert_eq!(scaler.with_initial(&scaling, 0, 0), 0);
    }

    fn crash() -> BlockEnd {
        BlockEnd::new(BlockEndKind::Crashed, "so it is")
    }

    #[test]
    fn failures_pause_starts_longer_each_time_and_then_try_one() {
        let (scaling, mut now, mut random) = (scaling(), Time::default(), Random::new(3));
        let mut scaler = Scaler::new(7);
        let before = scaler.next_name();
        for (failures, least) in [(1, 500), (2, 1000), (3, 2000)] {
            let block = scaler.next_name();
            let (count, until) = scaler.failed(&scaling, &mut random, block, crash(), now);
            assert_eq!(count, failures);
            assert!(until.since(now) >= Duration::from_millis(least));
            assert_eq!(scaler.missing(&scaling, 5, census(0), now), 0);
            now = until;
            assert_eq!(scaler.missing(&scaling, 5, census(0), now), 1);
        }
        scaler.proven(before);
        assert_eq!(
            scaler.missing(&scaling, 5, census(0), now),
            1,
            "it was started before the others failed"
        );
        let after = scaler.next_name();
        scaler.proven(after);
        assert_eq!(scaler.missing(&scaling, 5, census(0), now), 5);
    }

    #[test]
    fn what_was_started_at_once_and_fails_at_once_pauses_once() {
        let (scaling, now, mut random) = (scaling(), Time::default(), Random::new(3));
        let mut scaler = Scaler::new(7);
        let blocks = [(); 10].map(|()| scaler.next_name());
        let (_, first) = scaler.failed(&scaling, &mut random, blocks[0], crash(), now);
        for (failures, block) in (2..).zip(&blocks[1..]) {
            let (count, until) = scaler.failed(&scaling, &mut random, *block, crash(), now);
            assert_eq!((count, until), (failures, first));
        }
    }

    #[test]
    fn blocks_of_another_agent_do_not_shorten_the_pauses_of_this_one() {
        let (scaling, mut now, mut random) = (scaling(), Time::default(), Random::new(3));
        let mut scaler = Scaler::new(7);
        let theirs = BlockId { epoch: 8, number: 3 };
        scaler.reserve(theirs);
        scaler.failed(&scaling, &mut random, theirs, crash(), now);
        for least in [1000, 2000] {
            now = now + Duration::from_secs(9);
            let block = scaler.next_name();
            let (_, until) = scaler.failed(&scaling, &mut random, block, crash(), now);
            assert!(until.since(now) >= Duration::from_millis(least));
        }
    }

    #[test]
    fn what_fails_when_the_pause_is_over_is_followed_by_one_start_and_then_by_pauses() {
        let (scaling, mut now, mut random) = (scaling(), Time::default(), Random::new(3));
        let mut scaler = Scaler::new(7);
        let blocks = [(); 2].map(|()| scaler.next_name());
        scaler.failed(&scaling, &mut random, blocks[0], crash(), now);
        now = now + Duration::from_secs(9);
        scaler.failed(&scaling, &mut random, blocks[1], crash(), now);
        for least in [1000, 2000, 4000] {
            assert_eq!(scaler.missing(&scaling, 5, census(0), now), 1);
            let block = scaler.next_name();
            let (_, until) = scaler.failed(&scaling, &mut random, block, crash(), now);
            assert!(until.since(now) >= Duration::from_millis(least));
            now = until;
        }
    }

    #[test]
    fn few_start_at_once_until_one_has_come_up_and_many_from_then_on() {
        let scaling = Scaling {
            starts_in_flight: 2,
            starts_in_flight_max: 4,
            ..scaling()
        };
        let (now, mut random) = (Time::default(), Random::new(3));
        let mut scaler = Scaler::new(7);
        for starts in [2, 4, 4] {
            assert_eq!(scaler.missing(&scaling, 9, census(0), now), starts);
            let block = scaler.next_name();
            scaler.came_up(Some(block));
        }
        let block = scaler.next_name();
        scaler.failed(&scaling, &mut random, block, crash(), now);
        let later = scaler.next_name();
        scaler.proven(later);
        assert_eq!(scaler.missing(&scaling, 9, census(0), now), 2);
    }

    #[test]
    fn a_warm_reserve_is_wanted_beyond_what_the_tasks_ask_for() {
        let scaling = Scaling {
            min_idle_blocks: 2,
            min_blocks: 3,
            ..scaling()
        };
        let wanted = |blocks, bounded| Wanted { blocks, bounded };
        assert_eq!(wanted_blocks(&scaling, 1, 0), wanted(3, false));
        assert_eq!(wanted_blocks(&scaling, 1, 5), wanted(7, false));
        assert_eq!(wanted_blocks(&scaling, 1, 9), wanted(10, true));
    }

    #[test]
    fn names_are_never_given_twice() {
        let mut scaler = Scaler::new(7);
        scaler.reserve(BlockId { epoch: 7, number: 4 });
        scaler.reserve(BlockId { epoch: 6, number: 9 });
        assert_eq!(scaler.next_name().number, 5);
        assert_eq!(scaler.next_name().number, 6);
    }
}
