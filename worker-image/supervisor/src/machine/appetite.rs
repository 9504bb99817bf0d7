use std::time::Duration;

/// How much work is to wait here, so that a slot has its next task before the agent has heard of its last.
const AHEAD: Duration = Duration::from_millis(10);
/// Tasks that take longer than this are not fetched ahead: they could begin elsewhere meanwhile.
const LONG: Duration = Duration::from_millis(100);
/// The most tasks that wait for each slot.
const AHEAD_MAX: u32 = 64;

/// Learns from run times how many tasks to ask for beyond those that run.
#[derive(Debug)]
pub(super) struct Appetite {
    slots: u32,
    /// A running mean, in nanoseconds; none yet if zero.
    mean_ns: u64,
}

impl Appetite {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, mean_ns: 0 }
    }

    /// A task took this long.
    pub(super) fn learn(&mut self, run_time_ns: u64) {
        let run_time_ns = run_time_ns.max(1);
        self.mean_ns = if self.mean_ns == 0 || run_time_ns > self.mean_ns.saturating_mul(16) {
            // A long task after short ones is believed at once: tasks that wait behind it could run elsewhere.
            run_time_ns
        } else {
            (self.mean_ns / 8) * 7 + run_time_ns / 8
        }
        .max(1);
    }

    /// How many tasks should be waiting here while every slot is busy.
    pub(super) fn ahead(&self) -> u32 {
        if self.mean_ns == 0 || u128::from(self.mean_ns) >= LONG.as_nanos() {
            return 0;
        }
        let each = AHEAD.as_nanos() / u128::from(self.mean_ns);
        let each = u32::try_from(each).unwrap_or(AHEAD_MAX).clamp(1, AHEAD_MAX);
        each.saturating_mul(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead_after(run_times: &[Duration]) -> u32 {
        let mut appetite = Appetite::new(2);
        for run_time in run_times {
            appetite.learn(u64::try_from(run_time.as_nanos()).unwrap());
        }
        appetite.ahead()
    }

    #[test]
    fn nothing_is_fetched_ahead_before_anything_is_known() {
        assert_eq!(ahead_after(&[]), 0);
    }

    #[test]
    fn short_tasks_are_fetched_ahead_by_the_time_they_take() {
        assert_eq!(ahead_after(&[Duration::from_millis(1)]), 20);
        assert_eq!(ahead_after(&[Duration::from_millis(50)]), 2);
        assert_eq!(ahead_after(&[Duration::from_micros(1)]), 128);
    }

    #[test]
    fn long_tasks_are_not_fetched_ahead() {
        assert_eq!(ahead_after(&[Duration::from_secs(1)]), 0);
        let mut mixed = vec![Duration::from_millis(1); 100];
        mixed.push(Duration::from_secs(10));
        assert_eq!(ahead_after(&mixed), 0);
    }

    #[test]
    fn one_long_task_is_forgotten_in_time() {
        let mut mixed = vec![Duration::from_secs(10)];
        mixed.extend(vec![Duration::from_millis(1); 100]);
        assert_eq!(ahead_after(&mixed), 20 - 2, "a little over a millisecond");
    }
}
