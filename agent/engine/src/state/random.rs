use std::time::Duration;

/// The engine's only source of chance: SplitMix64, seeded by an argument. Good enough for jitter.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The pause before try number `tries` (from 0): doubled each time between the two bounds, and then a random part of
    /// it between a half and all, so that many do not come back at once.
    pub(crate) fn back_off(&mut self, tries: u32, min: Duration, max: Duration) -> Duration {
        let pause = min.saturating_mul(1 << tries.min(20)).min(max);
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros / 2 + self.next() % (micros / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_bound_and_stays_in_the_upper_half() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut random = Random::new(1);
        for (tries, whole) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (60, 1000)] {
            for _ in 0..100 {
                let pause = random.back_off(tries, min, max);
                assert!(
                    pause >= Duration::from_millis(whole / 2) && pause <= Duration::from_millis(whole),
                    "{pause:?}"
                );
            }
        }
    }
}
