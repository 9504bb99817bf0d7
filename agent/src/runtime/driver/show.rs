//! What a user endpoint tells of itself: status, gauges and heartbeats.

use std::sync::Arc;
use std::time::Duration;

use endpoint_telemetry as telemetry;
use tokio::time::Instant;

use super::Driver;
use crate::broker::BrokerState;
use crate::runtime::heartbeat::Node;
use crate::runtime::status::UserEndpointState;
use crate::runtime::{Ended, Stop};

/// The status is told at most this often.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// This user endpoint's part of the gauge of held bytes.
pub(super) struct HeldBytes {
    metrics: Arc<telemetry::Metrics>,
    part: i64,
}

impl HeldBytes {
    pub(super) const fn new(metrics: Arc<telemetry::Metrics>) -> Self {
        Self { metrics, part: 0 }
    }

    fn set(&mut self, bytes: u64) {
        let part = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.held_bytes.add(part - self.part);
        self.part = part;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Driver {
    pub(super) fn touch_status(&mut self) {
        if self.next_status.is_none() {
            self.next_status = Some(Instant::now() + STATUS_PERIOD);
        }
    }

    pub(super) fn next_housekeeping(&self) -> Instant {
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        [self.next_status, stop, self.results_until()]
            .into_iter()
            .flatten()
            .fold(self.next_heartbeat, Instant::min)
    }

    pub(super) fn keep_house(&mut self) {
        let now = Instant::now();
        if self.next_status.is_some_and(|at| at <= now) {
            self.next_status = None;
            self.tell_status(None);
        }
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + self.specification.config.base.heartbeat_period;
            self.send_heartbeat(true);
            let figures = self.observer.figures();
            if self.idleness.beat(&figures, self.fenced) && self.stopping.is_none() {
                tracing::info!(user_endpoint = %self.specification.name, "the user endpoint has been idle for long enough");
                self.stop(Stop::Drain, true);
                self.write_journal();
            }
        }
    }

    pub(super) fn send_heartbeat(&mut self, active: bool) {
        let now = self.clock.now();
        let nodes: Vec<Node> = self
            .observer
            .connected(now)
            .map(|(id, block, slots, idle)| {
                let worker = self.workers.values().find(|worker| worker.block == id);
                Node {
                    block,
                    slots,
                    idle,
                    python_version: worker.map_or_else(String::new, |worker| worker.python_version.clone()),
                    sdk_version: worker.map_or_else(String::new, |worker| worker.sdk_version.clone()),
                }
            })
            .collect();
        let body = self.heartbeats.compose(&self.observer.figures(), &nodes, active);
        self.broker.heartbeat(body);
    }

    pub(super) fn tell_status(&mut self, ended: Option<&Ended>) {
        let figures = self.observer.figures();
        let now = self.clock.now();
        let broker = self.broker.state();
        let state = match (ended, &self.stopping, broker) {
            (Some(_), _, _) => UserEndpointState::Ended,
            (None, Some(_), _) => UserEndpointState::Stopping,
            (None, None, BrokerState::Consuming) => UserEndpointState::Running,
            (None, None, BrokerState::Standby) => UserEndpointState::Standby,
            (None, None, BrokerState::Refused) => UserEndpointState::WaitingForCredentials,
            (None, None, BrokerState::Connecting | BrokerState::Closed) => UserEndpointState::Disconnected,
        };
        self.refused_share
            .set(telemetry::Refused::Broker, u64::from(broker == BrokerState::Refused));
        let (blocks, last_error) = (self.observer.blocks(), self.observer.last_error());
        let engine = self.engine.status(now);
        self.held_bytes.set(engine.held_bytes);
        self.status.send_modify(|status| {
            status.state = state;
            status.broker = broker;
            status.blocks = blocks;
            status.blocks_max = engine.blocks_max;
            status.blocks_bound = Some(engine.blocks_bound.as_str());
            status.blocks_bounded = engine.blocks_bounded_by.is_some();
            status.slots = figures.slots;
            status.tasks_waiting = figures.waiting + engine.queue_depth;
            status.tasks_running = figures.running;
            status.tasks_held = figures.held;
            status.bytes_held = engine.held_bytes;
            status.tasks_settled = figures.settled;
            status.oldest_wait_ms = engine
                .oldest_wait
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            status.last_error = last_error;
        });
        // How long the oldest has waited changes by itself.
        if figures.waiting > 0 && ended.is_none() {
            self.next_status = Some(Instant::now() + Duration::from_secs(1));
        }
    }
}
