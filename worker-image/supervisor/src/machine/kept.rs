use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::Time;

/// How long the ids of settled tasks are remembered.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many of them at most, the newest.
const KEPT_MAX: usize = 100_000;

/// The ids of tasks whose results are safe with the agent.
#[derive(Debug, Default)]
pub(super) struct Settled {
    order: VecDeque<(Time, Uuid)>,
    ids: HashSet<Uuid>,
}

impl Settled {
    pub(super) fn add(&mut self, task: Uuid, now: Time) {
        if self.ids.insert(task) {
            self.order.push_back((now, task));
        }
        self.forget(now);
    }

    pub(super) fn contains(&mut self, task: &Uuid, now: Time) -> bool {
        self.forget(now);
        self.ids.contains(task)
    }

    pub(super) fn list(&mut self, now: Time) -> Vec<Uuid> {
        self.forget(now);
        self.order.iter().map(|(_, task)| *task).collect()
    }

    fn forget(&mut self, now: Time) {
        while let Some((since, task)) = self.order.front() {
            if self.order.len() <= KEPT_MAX && now.saturating_sub(*since) <= KEPT_FOR {
                return;
            }
            self.ids.remove(task);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forgotten_after_an_hour() {
        let mut settled = Settled::default();
        settled.add(Uuid::from_u128(1), Duration::from_secs(10));
        assert!(settled.contains(&Uuid::from_u128(1), Duration::from_secs(3610)));
        assert!(!settled.contains(&Uuid::from_u128(1), Duration::from_secs(3611)));
        assert!(settled.list(Duration::from_secs(3611)).is_empty());
    }

    #[test]
    fn the_oldest_id_makes_room_for_the_newest() {
        let mut settled = Settled::default();
        for id in 0..=KEPT_MAX as u128 {
            settled.add(Uuid::from_u128(id), Duration::ZERO);
        }
        assert!(!settled.contains(&Uuid::from_u128(0), Duration::ZERO));
        assert_eq!(settled.list(Duration::ZERO).len(), KEPT_MAX);
    }
}
