//! Waiting between attempts at what may work later.

use std::time::Duration;

/// Waits that double up to a limit, each shortened by a random part of up to a half, so that many endpoints that lost
/// the same broker do not all come back in the same moment.
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    /// Waits that begin with `first` and never become longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// It worked: the next wait is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.longest);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_a_reset() {
        let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected in [100, 200, 350, 350] {
            let wait = back_off.next_wait();
            let expected = Duration::from_millis(expected);
            assert!(
                wait <= expected && wait >= expected / 2,
                "{wait:?} is not between half of and {expected:?}"
            );
        }
        back_off.reset();
        assert!(back_off.next_wait() <= Duration::from_millis(100));
    }
}
