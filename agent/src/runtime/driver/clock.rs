use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use waypost_engine::Time;

/// The wall clock, read once, and the monotonic clock since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: u64,
    begun: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            wall: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            begun: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::from_micros(self.wall) + self.begun.elapsed()
    }

    pub(super) fn instant(&self, at: Time) -> Instant {
        self.begun + at.since(Time::from_micros(self.wall))
    }
}
