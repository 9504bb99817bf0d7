//! How a user endpoint ends.

use std::time::Duration;

use tokio::time::Instant;
use waypost_engine::{Drain, Input};

use super::Driver;
use crate::runtime::{Ended, Stop, settings};

/// How long a hand-over may take to flush results: a pod has 30 s to end unless its manifest says more.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(25);
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
            Stop::HandOver => (Drain::HandOver, HAND_OVER_TIMEOUT),
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
