//! How a user endpoint ends.

use std::time::Duration;

use tokio::time::Instant;
use waypost_engine::{Drain, Input};

use super::Driver;
use crate::runtime::{Ended, Stop, settings};

/// How long a pod has to end unless its manifest says otherwise.
const TERMINATION_GRACE: Duration = Duration::from_secs(30);
/// What of it is left for the rest of the process' end when a hand-over has flushed all the results that it could.
const HAND_OVER_RESERVE: Duration = Duration::from_secs(5);
/// How long a stop may take to end its blocks beyond the grace for running tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A stop under way.
pub(super) struct Stopping {
    /// What it has come to: never [`Stop::Terminate`].
    how: Stop,
    idle: bool,
    pub(super) until: Instant,
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
        });
        self.drained = false;
        self.touch_status();
        self.input(Input::Drain(drain));
    }

    /// How long a hand-over may take to flush results.
    fn hand_over_timeout(&self) -> Duration {
        let cluster = self.environment.settings().cluster.as_ref();
        hand_over_timeout(cluster.and_then(|cluster| cluster.deployment().termination_grace))
    }

    /// Whether there is nothing left to do, or no time for it.
    pub(super) fn is_over(&self) -> Option<Ended> {
        let stopping = self.stopping.as_ref()?;
        let timed_out = stopping.until <= Instant::now();
        if timed_out {
            tracing::warn!(user_endpoint = %self.specification.name, how = ?stopping.how, "the stop took too long and is cut short");
        }
        let ended = if stopping.idle { Ended::Idle } else { Ended::Stopped };
        (timed_out || (self.drained && self.broker.is_flushed())).then_some(ended)
    }

    /// Says goodbye to the broker.
    pub(super) async fn finish(&mut self, ended: &Ended) {
        self.send_heartbeat(false);
        self.broker.close().await;
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
