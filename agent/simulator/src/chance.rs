use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// All chance of a world, from one seed.
#[derive(Debug)]
pub(crate) struct Chance(Pcg64Mcg);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// A number of the range, its end included.
    pub(crate) fn range(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            from
        } else {
            self.0.random_range(from..=to)
        }
    }

    pub(crate) fn number(&mut self, from: u32, to: u32) -> u32 {
        u32::try_from(self.range(from.into(), to.into())).unwrap_or(to)
    }

    /// True `odds` times in a thousand.
    pub(crate) fn happens(&mut self, odds: u32) -> bool {
        odds > 0 && self.range(0, 999) < u64::from(odds)
    }

    /// A time between the two, of which small ones are as likely as large ones.
    pub(crate) fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (from.as_secs_f64().max(1e-6), to.as_secs_f64().max(1e-6));
        let fraction: f64 = self.0.random();
        Duration::from_secs_f64(from * (to / from).powf(fraction))
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        self.time(Duration::from_millis(from), Duration::from_millis(to))
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn choose<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let last = all.len().checked_sub(1)?;
        let index = usize::try_from(self.range(0, last as u64)).unwrap_or(0);
        all.get(index).copied()
    }
}
