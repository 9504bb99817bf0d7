use std::collections::VecDeque;
use std::time::Duration;

use crate::state::map::TaskMap;
use crate::{TaskId, Time};

/// The tasks whose result was confirmed: an hour's, and at most so many. Between a result's confirm and the end of its
/// delivery somebody must remember, for an acknowledgement has no reply.
#[derive(Debug)]
pub(crate) struct Settled {
    life: Duration,
    limit: usize,
    known: TaskMap<Time>,
    order: VecDeque<(Time, TaskId)>,
}

impl Settled {
    pub(crate) fn new(life: Duration, limit: usize) -> Self {
        Self {
            life,
            limit,
            known: TaskMap::default(),
            order: VecDeque::new(),
        }
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.known.get(task).is_some()
    }

    /// Remembers a task, and forgets what is too old or too much. True if it was not known.
    pub(crate) fn insert(&mut self, task: TaskId, at: Time, now: Time) -> bool {
        let new = self.known.insert(task, at).is_none();
        self.order.push_back((at, task));
        while let Some(&(at, task)) = self.order.front() {
            if self.known.len() <= self.limit && now.since(at) <= self.life {
                break;
            }
            self.order.pop_front();
            // A task that was settled again has a later entry of its own.
            if self.known.get(task) == Some(&at) {
                self.known.remove(task);
            }
        }
        new
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn task(number: u128) -> TaskId {
        TaskId(Uuid::from_u128(number))
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut settled = Settled::new(Duration::from_secs(3600), 2);
        for number in 1..=3 {
            let now = Time::from_micros(u64::try_from(number).unwrap());
            assert!(settled.insert(task(number), now, now));
        }
        assert!(!settled.contains(task(1)));
        assert!(settled.contains(task(2)) && settled.contains(task(3)));
    }

    #[test]
    fn what_is_older_than_its_life_is_forgotten_unless_settled_again() {
        let mut settled = Settled::new(Duration::from_secs(10), 100);
        let start = Time::from_micros(0);
        settled.insert(task(1), start, start);
        settled.insert(task(2), start, start);
        let later = start + Duration::from_secs(8);
        assert!(!settled.insert(task(1), later, later));
        let end = start + Duration::from_secs(11);
        settled.insert(task(3), end, end);
        assert!(settled.contains(task(1)) && !settled.contains(task(2)));
        assert_eq!(settled.len(), 2);
    }
}
