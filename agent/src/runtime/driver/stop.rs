//! How a user endpoint ends.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use waypost_engine::{Drain, Input};

use super::Driver;
use crate::broker::BrokerState;
use crate::runtime::{Ended, Stop, settings};

/// How long a pod has to end unless its manifest says otherwise.
const TERMINATION_GRACE: Duration = Duration::from_secs(30);
/// What of it is left for the rest of the process' end when a hand-over has flushed all the results that it could.
const HAND_OVER_RESERVE: Duration = Duration::from_secs(5);
/// How long a stop may take to end its blocks beyond the grace for running tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stop with nothing left but results waits for the broker to take one of them. Those that it does not take
/// are kept in the journal. A broker that refuses the credentials is tried once more and not waited for: there are none
/// but these.
const RESULTS_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stop waits for what its blocks left to be removed. An agent's next life finds what it leaves.
const LEAVINGS_PATIENCE: Duration = Duration::from_secs(10);

/// A stop under way.
pub(super) struct Stopping {
    /// What it has come to: never [`Stop::Terminate`].
    how: Stop,
    idle: bool,
    pub(super) until: Instant,
    results: Results,
}

/// How a stop deals with the results that the broker has not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Results {
    /// Other things are waited for.
    NotYet,
    /// They are all that is waited for, until then; so many tasks were settled when that began.
    Awaited { until: Instant, settled: u64 },
    /// They are waited for no longer.
    Left,
}

impl Driver {
    /// Begins to end, for idleness or because it was told to.
    pub(super) fn stop(&mut self, how: Stop, idle: bool) {
        let how = match how {
            Stop::Terminate if self.specification.config.engine.provider.outlives_agent() => Stop::HandOver,
            Stop::Terminate => Stop::Drain,
            how @ (Stop::HandOver | Stop::Drain) => how,
        };
        let (drain, timeout) = match how {
            Stop::HandOver => (Drain::HandOver, self.hand_over_timeout()),
            Stop::Drain | Stop::Terminate => (Drain::Stop, STOP_TIMEOUT + settings::STOP_GRACE),
        };
        // Only from a hand-over to a drain is there a way further.
        if self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.how == how || stopping.how == Stop::Drain)
        {
            return;
        }
        tracing::info!(user_endpoint = %self.specification.name, ?how, "the user endpoint is being stopped");
        self.stopping = Some(Stopping {
            how,
            idle,
            until: Instant::now() + timeout,
            results: Results::NotYet,
        });
        self.broker.try_at_once();
        self.drained = false;
        self.touch_status();
        self.input(Input::Drain(drain));
    }

    /// How long a hand-over may take to flush results.
    fn hand_over_timeout(&self) -> Duration {
        let cluster = self.environment.settings().cluster.as_ref();
        hand_over_timeout(cluster.and_then(|cluster| cluster.deployment().termination_grace))
    }

    /// Waits for the broker no longer if it will not, or does not, take the results that are all there is left.
    pub(super) fn leave_results(&mut self) {
        let Some(stopping) = self.stopping.as_mut().filter(|_| !self.drained) else {
            return;
        };
        let status = self.engine.status(self.clock.now());
        let (now, settled) = (Instant::now(), self.observer.figures().settled);
        let refused = self.broker.state() == BrokerState::Refused;
        let hands_over = stopping.how == Stop::HandOver;
        let alone = status.results > 0 && status.tasks_queued == 0 && (hands_over || status.tasks_running == 0);
        let until = match stopping.results {
            Results::Left => return,
            _ if !alone => {
                stopping.results = Results::NotYet;
                return;
            }
            Results::Awaited { until, settled: before } if before == settled => until,
            Results::NotYet | Results::Awaited { .. } => now + RESULTS_PATIENCE,
        };
        stopping.results = Results::Awaited { until, settled };
        // Who hands over has until the end of its pod.
        if !refused && (hands_over || now < until) {
            return;
        }
        stopping.results = Results::Left;
        let why = if refused {
            "refuses the credentials".to_owned()
        } else {
            format!("has taken none of them for {} s", RESULTS_PATIENCE.as_secs())
        };
        tracing::warn!(
            user_endpoint = %self.specification.name,
            results = status.results,
            "the stop waits no longer for the broker, which {why}: the results are kept, and the next start delivers them"
        );
        if !hands_over {
            self.input(Input::KeepResults);
            self.write_journal();
        }
    }

    /// When the broker's time to take results is over.
    pub(super) fn results_until(&self) -> Option<Instant> {
        match self.stopping.as_ref()?.results {
            Results::Awaited { until, .. } => Some(until),
            Results::NotYet | Results::Left => None,
        }
    }

    /// Whether there is nothing left to do, or no time for it.
    pub(super) fn is_over(&self) -> Option<Ended> {
        let stopping = self.stopping.as_ref()?;
        // What an agent that hands over has not published stays with its blocks.
        let left = stopping.how == Stop::HandOver && stopping.results == Results::Left;
        let timed_out = stopping.until <= Instant::now();
        if timed_out {
            tracing::warn!(user_endpoint = %self.specification.name, how = ?stopping.how, "the stop took too long and is cut short");
        }
        let ended = if stopping.idle { Ended::Idle } else { Ended::Stopped };
        (timed_out || left || (self.drained && self.broker.is_flushed())).then_some(ended)
    }

    /// Says goodbye to the broker, and sees to what is left of the blocks if they were to end.
    pub(super) async fn finish(&mut self, ended: &Ended) {
        self.send_heartbeat(false);
        self.broker.close().await;
        let drains = self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.how == Stop::Drain);
        if drains && timeout(LEAVINGS_PATIENCE, self.provider.finish()).await.is_err() {
            tracing::warn!(user_endpoint = %self.specification.name, "what blocks left could not all be removed: the next start does it");
        }
        self.tell_status(Some(ended));
    }
}

/// As long as the pod has to end, less what the rest of that takes; of a short time at least half.
fn hand_over_timeout(grace: Option<Duration>) -> Duration {
    let grace = grace.unwrap_or(TERMINATION_GRACE);
    grace.saturating_sub(HAND_OVER_RESERVE).max(grace / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_takes_no_longer_than_the_pod_has() {
        for (grace, seconds) in [(None, 25), (Some(60), 55), (Some(600), 595), (Some(6), 3), (Some(0), 0)] {
            let timeout = hand_over_timeout(grace.map(Duration::from_secs));
            assert_eq!(timeout, Duration::from_secs(seconds), "{grace:?}");
        }
    }
}
