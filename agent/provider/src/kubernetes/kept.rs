//! Failed pods that stay for a while, so that a person can look at them.

use std::collections::VecDeque;

use endpoint_config::KeptPods;
use tokio::time::Instant;

/// The oldest first.
#[derive(Debug)]
pub(super) struct Kept {
    limits: KeptPods,
    pods: VecDeque<(Instant, String, String)>,
}

impl Kept {
    pub(super) fn new(limits: KeptPods) -> Self {
        Self {
            limits,
            pods: VecDeque::new(),
        }
    }

    /// Whether any is kept.
    pub(super) fn is_wanted(&self) -> bool {
        self.limits.count > 0
    }

    /// One more, by its name and unique id.
    pub(super) fn add(&mut self, name: String, uid: String, since: Instant) {
        if !self.has(&uid) {
            self.pods.push_back((since, name, uid));
        }
    }

    /// Whether the pod of this unique id is one.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.pods.iter().any(|(_, _, known)| known == uid)
    }

    /// One is gone.
    pub(super) fn forget(&mut self, name: &str) {
        self.pods.retain(|(_, known, _)| known != name);
    }

    /// When the oldest has been kept for long enough.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.pods.front().map(|(since, _, _)| *since + self.limits.age)
    }

    /// Takes out those that are too many or too old, by name and unique id.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(String, String)> {
        let mut expired = Vec::new();
        let most = usize::try_from(self.limits.count).unwrap_or(usize::MAX);
        while let Some((since, _, _)) = self.pods.front() {
            if self.pods.len() <= most && *since + self.limits.age > now {
                break;
            }
            expired.extend(self.pods.pop_front().map(|(_, name, uid)| (name, uid)));
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_goes_first_when_there_are_too_many_and_each_when_it_is_old() {
        let age = Duration::from_secs(10);
        let mut kept = Kept::new(KeptPods { count: 2, age });
        let begin = Instant::now();
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            let since = begin + Duration::from_secs(u64::try_from(index).unwrap_or_default());
            kept.add(name.to_owned(), format!("uid-{name}"), since);
        }
        kept.add("c".to_owned(), "uid-c".to_owned(), begin);
        let names =
            |expired: Vec<(String, String)>| -> Vec<String> { expired.into_iter().map(|(name, _)| name).collect() };
        assert_eq!(names(kept.expired(begin)), ["a"]);
        assert_eq!(kept.next_expiry(), Some(begin + Duration::from_secs(11)));
        assert_eq!(names(kept.expired(begin + Duration::from_secs(11))), ["b"]);
        kept.forget("c");
        assert_eq!(kept.next_expiry(), None);
    }
}
