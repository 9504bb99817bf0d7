//! How fast tasks come to their end, and how long blocks take to come up: whether the slots in hand would take a waiting
//! task before another block could.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Time;

/// What is counted together.
const BUCKET: Duration = Duration::from_millis(250);

/// What was seen lately.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Nothing is put off for longer, and nothing older is remembered.
    most: Duration,
    /// How long blocks took from their start to their worker's hello: a mean in which the last counts for a quarter.
    start: Option<Duration>,
    /// Tasks that ended, by the bucket of time in which they did.
    ended: VecDeque<(u64, u64)>,
    /// Since when there have been fewer blocks than are wanted.
    short_since: Option<Time>,
}

impl Pace {
    pub(crate) const fn new(most: Duration) -> Self {
        Self {
            most,
            start: None,
            ended: VecDeque::new(),
            short_since: None,
        }
    }

    /// A task has ended, in a block that is there.
    pub(crate) fn ended(&mut self, now: Time) {
        let bucket = bucket(now);
        match self.ended.back_mut() {
            Some((last, count)) if *last == bucket => *count += 1,
            Some(_) | None => self.ended.push_back((bucket, 1)),
        }
        let oldest = bucket.saturating_sub(buckets(self.most));
        while self.ended.front().is_some_and(|(at, _)| *at < oldest) {
            self.ended.pop_front();
        }
    }

    /// A block came up after so long.
    pub(crate) fn came_up(&mut self, after: Duration) {
        self.start = Some(self.start.map_or(after, |mean| (mean * 3 + after) / 4));
    }

    /// How long a block may be put off at most: as long as it would take to come up. Nothing is known before one did.
    pub(crate) fn lag(&self) -> Duration {
        self.start.unwrap_or_default().min(self.most)
    }

    /// How many tasks will end before a block that is started now comes up, if they go on ending as they did.
    pub(crate) fn soon_ended(&self, now: Time) -> u64 {
        let first = bucket(now).saturating_sub(buckets(self.lag()));
        let recent = self.ended.iter().rev().take_while(|(at, _)| *at > first);
        recent.map(|(_, count)| count).sum()
    }

    /// There are fewer blocks than are wanted: since when.
    pub(crate) fn shortage(&mut self, now: Time) -> Time {
        *self.short_since.get_or_insert(now)
    }

    /// There are as many blocks as are wanted.
    pub(crate) const fn no_shortage(&mut self) {
        self.short_since = None;
    }
}

fn bucket(at: Time) -> u64 {
    at.as_micros() / micros(BUCKET)
}

fn buckets(time: Duration) -> u64 {
    micros(time) / micros(BUCKET)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tasks_go_on_ending_as_they_did_while_a_block_would_come_up() {
        let mut pace = Pace::new(SECOND * 5);
        let mut now = Time::from_micros(1_000_000_000);
        for _ in 0..100 {
            pace.ended(now);
            now = now + Duration::from_millis(100);
        }
        assert_eq!(pace.soon_ended(now), 0, "nobody knows how long a block takes");
        pace.came_up(SECOND * 2);
        // Whole buckets are counted, so that it may be a few less.
        assert!((17..=20).contains(&pace.soon_ended(now)), "{}", pace.soon_ended(now));
        pace.came_up(SECOND * 600);
        assert_eq!(pace.lag(), SECOND * 5, "nothing is put off for longer");
        assert!((47..=50).contains(&pace.soon_ended(now)), "{}", pace.soon_ended(now));
        assert_eq!(pace.soon_ended(now + SECOND * 6), 0);
        assert!(pace.ended.len() <= 21, "nothing older is remembered");
    }

    #[test]
    fn a_shortage_lasts_until_there_is_none() {
        let mut pace = Pace::new(SECOND);
        let begin = Time::from_micros(7);
        assert_eq!(pace.shortage(begin), begin);
        assert_eq!(pace.shortage(begin + SECOND), begin);
        pace.no_shortage();
        assert_eq!(pace.shortage(begin + SECOND), begin + SECOND);
    }
}
