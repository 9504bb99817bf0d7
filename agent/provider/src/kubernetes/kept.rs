//! Failed pods that stay for a while, so that a person can look at them.

use std::collections::VecDeque;

use endpoint_config::KeptPods;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::jobs::{Jobs, Removal};

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
            let older = self.pods.partition_point(|(kept, _, _)| *kept <= since);
            self.pods.insert(older, (since, name, uid));
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

    /// Deletes those that are left when each has been kept for long enough: nobody else does once the user endpoint has
    /// ended. If this process ends before, they stay until the user endpoint is started again.
    pub(super) async fn outlast(mut self, jobs: Jobs) {
        while let Some(at) = self.next_expiry() {
            sleep_until(at).await;
            for (name, uid) in self.expired(Instant::now()) {
                remove(&jobs, &name, uid).await;
            }
        }
    }
}

/// Deletes a pod that was kept.
pub(super) async fn remove(jobs: &Jobs, name: &str, uid: String) {
    let removal = jobs.remove(name, Some(uid), &CancellationToken::new()).await;
    if let Removal::Refused(error) = removal {
        tracing::warn!(pod = name, %error, "a failed pod that was kept can not be deleted");
    }
}

/// What the annotation of a pod says that is kept from now on. It is the wall clock's time, for other lives of the agent.
pub(super) fn annotation() -> String {
    Timestamp::now().to_string()
}

/// Since when a pod is kept that has this annotation; from now on if it does not say.
pub(super) fn since(annotation: &str) -> Instant {
    let now = Instant::now();
    let since = annotation.parse::<Timestamp>().ok();
    // A negative one is that of a clock that was ahead of this.
    let age = since.and_then(|since| Timestamp::now().duration_since(since).try_into().ok());
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
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

    #[test]
    fn a_pod_is_as_old_as_its_annotation_says_whichever_is_listed_first() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let old = since(&(Timestamp::now() - hour).to_string());
        let about = |age: Duration| age.saturating_sub(hour / 4)..age + hour / 4;
        assert!(about(hour).contains(&now.duration_since(old)));
        assert!(about(Duration::ZERO).contains(&now.duration_since(since(&annotation()))));
        for other in [(Timestamp::now() + hour).to_string(), "true".to_owned()] {
            assert!(since(&other) >= now, "{other}");
        }
        let mut kept = Kept::new(KeptPods { count: 2, age: hour });
        kept.add("new".to_owned(), "uid-new".to_owned(), now);
        kept.add("old".to_owned(), "uid-old".to_owned(), old);
        assert_eq!(kept.next_expiry(), Some(old + hour));
    }
}
