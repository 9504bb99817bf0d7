use crate::{BlockEnd, BlockEndKind, OnUnschedulable, Scaling, Time, Waiting, WaitingCause};

/// How far a block is on its way from being asked for to its worker's hello.
#[derive(Debug)]
pub(crate) struct Launch {
    step: Step,
    /// Since when it is at this step, or has this cause to wait.
    since: Time,
    /// When its image could not be pulled for the first time: the platform tries again and again, and says other things
    /// in between.
    image_since: Option<Time>,
}

#[derive(Debug)]
enum Step {
    /// Nothing is known but that it was asked for.
    Asked,
    /// The platform says what keeps it.
    Waiting(Waiting),
    /// Its container runs.
    Running,
}

impl Launch {
    pub(crate) const fn new(now: Time) -> Self {
        Self {
            step: Step::Asked,
            since: now,
            image_since: None,
        }
    }

    /// The platform says that it does not run yet, and perhaps why. True if that is news.
    pub(crate) fn pending(&mut self, why: Option<Waiting>, now: Time) -> bool {
        let cause = why.as_ref().map(|waiting| waiting.cause);
        if cause != self.waiting().map(|waiting| waiting.cause) {
            self.since = now;
        }
        if cause == Some(WaitingCause::Image) {
            self.image_since.get_or_insert(now);
        }
        let news = why.as_ref() != self.waiting();
        self.step = why.map_or(Step::Asked, Step::Waiting);
        news
    }

    /// Its container runs.
    pub(crate) fn running(&mut self, now: Time) {
        if !matches!(self.step, Step::Running) {
            self.step = Step::Running;
            self.since = now;
        }
    }

    /// It waits for a node for as long again.
    pub(crate) const fn wait_on(&mut self, now: Time) {
        self.since = now;
    }

    /// What the platform says that keeps it.
    pub(crate) const fn waiting(&self) -> Option<&Waiting> {
        match &self.step {
            Step::Waiting(waiting) => Some(waiting),
            Step::Asked | Step::Running => None,
        }
    }

    /// Something is in its way that may stay there for good.
    pub(crate) fn is_obstructed(&self) -> bool {
        self.waiting()
            .is_some_and(|waiting| waiting.cause != WaitingCause::Other)
    }

    /// Until when it may stay at this step; `None`: for as long as it takes.
    pub(crate) fn deadline(&self, scaling: &Scaling) -> Option<Time> {
        let patient = scaling.on_unschedulable == OnUnschedulable::Wait;
        match &self.step {
            Step::Asked => Some(self.since + scaling.creation_timeout),
            Step::Running => Some(self.since + scaling.registration_timeout),
            Step::Waiting(waiting) => match waiting.cause {
                WaitingCause::Scheduling | WaitingCause::Image if patient => None,
                WaitingCause::Scheduling => Some(self.since + scaling.scheduling_timeout),
                WaitingCause::Image => Some(self.image_since.unwrap_or(self.since) + scaling.image_grace),
                WaitingCause::Never => Some(self.since),
                WaitingCause::Other => Some(self.since + scaling.creation_timeout),
            },
        }
    }

    /// How it ends if that has passed: in words that go on after "because".
    pub(crate) fn failure(&self, scaling: &Scaling) -> BlockEnd {
        let seconds = |time: std::time::Duration| time.as_secs();
        let (kind, message) = match &self.step {
            Step::Asked => (
                BlockEndKind::CreationTimeout,
                format!("it did not run within {} s", seconds(scaling.creation_timeout)),
            ),
            Step::Running => (
                BlockEndKind::NotRegistered,
                format!(
                    "it ran, but its worker did not say hello within {} s",
                    seconds(scaling.registration_timeout)
                ),
            ),
            Step::Waiting(Waiting { cause, text }) => match cause {
                WaitingCause::Scheduling => (
                    BlockEndKind::Unschedulable,
                    format!(
                        "no node took it within {} s: {text}",
                        seconds(scaling.scheduling_timeout)
                    ),
                ),
                WaitingCause::Image => (
                    BlockEndKind::ImageNotPulled,
                    format!(
                        "its image could not be pulled within {} s: {text}",
                        seconds(scaling.image_grace)
                    ),
                ),
                WaitingCause::Never => (BlockEndKind::Misconfigured, text.clone()),
                WaitingCause::Other => (
                    BlockEndKind::CreationTimeout,
                    format!("it did not run within {} s: {text}", seconds(scaling.creation_timeout)),
                ),
            },
        };
        BlockEnd::new(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waiting(cause: WaitingCause) -> Option<Waiting> {
        let text = cause.as_str().to_owned();
        Some(Waiting { cause, text })
    }

    #[test]
    fn each_step_has_a_time_of_its_own() {
        let (scaling, start) = (Scaling::default(), Time::from_micros(0));
        let mut launch = Launch::new(start);
        let left = |launch: &Launch, now: Time| launch.deadline(&scaling).map(|at| at.since(now).as_secs());
        assert_eq!(left(&launch, start), Some(600));
        let now = start + Duration::from_secs(10);
        launch.pending(waiting(WaitingCause::Scheduling), now);
        assert_eq!(left(&launch, now), Some(600));
        let now = now + Duration::from_secs(500);
        launch.pending(waiting(WaitingCause::Other), now);
        assert_eq!(left(&launch, now), Some(600), "a node came: its time begins anew");
        launch.running(now);
        assert_eq!(left(&launch, now), Some(300));
        launch.running(now + Duration::from_secs(100));
        assert_eq!(left(&launch, now), Some(300), "seen twice, it runs no longer");
    }

    #[test]
    fn the_grace_of_an_image_counts_from_its_first_failure() {
        let (scaling, start) = (Scaling::default(), Time::from_micros(0));
        let mut launch = Launch::new(start);
        launch.pending(waiting(WaitingCause::Image), start);
        launch.pending(None, start + Duration::from_secs(10));
        launch.pending(waiting(WaitingCause::Image), start + Duration::from_secs(20));
        assert_eq!(launch.deadline(&scaling), Some(start + Duration::from_secs(30)));
    }

    #[test]
    fn who_waits_waits_for_nodes_and_images_but_not_for_what_can_never_work() {
        let scaling = Scaling {
            on_unschedulable: OnUnschedulable::Wait,
            ..Scaling::default()
        };
        let now = Time::from_micros(5);
        let mut launch = Launch::new(now);
        for cause in [WaitingCause::Scheduling, WaitingCause::Image] {
            launch.pending(waiting(cause), now);
            assert_eq!(launch.deadline(&scaling), None);
        }
        launch.pending(waiting(WaitingCause::Never), now);
        assert_eq!(launch.deadline(&scaling), Some(now));
    }
}
