use std::collections::{BTreeMap, BTreeSet};

use crate::{BlockId, DeadlineReason, TaskId, Time};

/// Everything that the engine may wait for. There is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    RestartGrace,
    WorkerGrace(BlockId),
    BlockTimeout(BlockId),
    DeleteAgain(BlockId),
    IdleBlock,
    StartBackOff,
    StartPutOff,
    PublishAgain(TaskId),
    Refresh,
    AskQueueDepth,
    StopGrace,
}

impl Timer {
    const fn reason(self) -> DeadlineReason {
        match self {
            Self::RestartGrace => DeadlineReason::RestartGrace,
            Self::WorkerGrace(_) => DeadlineReason::WorkerGrace,
            Self::BlockTimeout(_) => DeadlineReason::BlockTimeout,
            Self::DeleteAgain(_) => DeadlineReason::DeleteAgain,
            Self::IdleBlock => DeadlineReason::IdleBlock,
            Self::StartBackOff => DeadlineReason::StartBackOff,
            Self::StartPutOff => DeadlineReason::StartPutOff,
            Self::PublishAgain(_) => DeadlineReason::PublishAgain,
            Self::Refresh => DeadlineReason::Refresh,
            Self::AskQueueDepth => DeadlineReason::AskQueueDepth,
            Self::StopGrace => DeadlineReason::StopGrace,
        }
    }
}

/// The one table of all deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<Timer, Time>,
    order: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets a timer, or moves it.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        if let Some(before) = self.due.insert(timer, at) {
            if before == at {
                return;
            }
            self.order.remove(&(before, timer));
        }
        self.order.insert((at, timer));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// The earliest, and what it is for.
    pub(crate) fn next(&self) -> Option<(Time, DeadlineReason)> {
        self.order.first().map(|&(at, timer)| (at, timer.reason()))
    }

    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.order.first().is_some_and(|&(at, _)| at <= now)
    }

    /// Takes the earliest one that is due.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Timer> {
        let &(at, timer) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.due.remove(&timer);
        Some(timer)
    }

    pub(crate) fn agree(&self) -> bool {
        self.due.len() == self.order.len() && self.due.iter().all(|(timer, at)| self.order.contains(&(*at, *timer)))
    }
}
