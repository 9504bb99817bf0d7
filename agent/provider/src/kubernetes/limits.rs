//! How many requests a second the API server is asked by this process.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A bucket of permits that fills at an even rate: so many at once, and from then on so many a second.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    burst: Duration,
    /// When the bucket would be full if nobody took any more.
    full: Mutex<Option<Instant>>,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            burst: interval * burst.max(1),
            full: Mutex::new(None),
        }
    }

    /// Waits for a permit. They are given in the order in which they were asked for.
    pub(super) async fn permit(&self) {
        let at = {
            let mut full = self.full.lock().await;
            let (at, next) = schedule(Instant::now(), *full, self.interval, self.burst);
            *full = Some(next);
            at
        };
        sleep_until(at).await;
    }

    /// Takes a permit if there is one at this moment.
    pub(super) async fn try_permit(&self) -> bool {
        let mut full = self.full.lock().await;
        let now = Instant::now();
        let (at, next) = schedule(now, *full, self.interval, self.burst);
        let given = at <= now;
        if given {
            *full = Some(next);
        }
        given
    }
}

/// When the permit is given, and when the bucket is full again after it.
fn schedule(now: Instant, full: Option<Instant>, interval: Duration, burst: Duration) -> (Instant, Instant) {
    let next = full.map_or(now, |full| full.max(now)) + interval;
    let at = next.checked_sub(burst).map_or(now, |at| at.max(now));
    (at, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_what_is_beyond_it_at_the_rate() {
        let now = Instant::now();
        let (interval, burst) = (Duration::from_millis(100), Duration::from_millis(300));
        let mut full = None;
        let mut given = Vec::new();
        for _ in 0..6 {
            let (at, next) = schedule(now, full, interval, burst);
            full = Some(next);
            given.push((at - now).as_millis());
        }
        assert_eq!(given, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        let (at, _) = schedule(later, full, interval, burst);
        assert_eq!(at, later, "the bucket is full again after a pause");
    }

    #[tokio::test]
    async fn who_does_not_wait_gets_what_is_there_and_takes_nothing_from_those_after() {
        let limit = RateLimit::new(1, 2);
        assert!(limit.try_permit().await && limit.try_permit().await);
        let full = *limit.full.lock().await;
        assert!(!limit.try_permit().await);
        assert_eq!(*limit.full.lock().await, full);
    }
}
