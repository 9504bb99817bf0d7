//! Heartbeats: which endpoints are online, and what becomes of tasks whose user endpoint stopped or could not start.

use std::sync::Arc;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use serde_json::Value;
use uuid::Uuid;
use waypost_protocol::{Message, StatusReport, decode};

use super::consumer::{BATCH_MAX, consumer, next_batch};
use crate::app::{App, WorkError};
use crate::broker::{BrokerError, HEARTBEATS, at, sender};
use crate::metrics::DroppedHeartbeat;
use crate::store::HeartbeatOutcome;
use crate::{clock, user_endpoints};

/// What an endpoint that names no period is held to, in seconds: upstream's default.
const DEFAULT_PERIOD_SECONDS: f64 = 30.0;

/// Heartbeats that may be waiting here, acknowledged by none.
const WINDOW: u16 = BATCH_MAX;

/// Handles heartbeats until the consumer ends.
pub(super) async fn consume(app: &Arc<App>, channel: &Channel) -> Result<(), BrokerError> {
    let mut consumer = consumer(channel, HEARTBEATS, WINDOW).await?;
    while let Some(batch) = next_batch(&mut consumer).await {
        let batch = batch.map_err(at("consuming heartbeats"))?;
        let Some(last) = batch.last().map(|delivery| delivery.delivery_tag) else {
            continue;
        };
        for delivery in batch {
            if let Some((id, report)) = report(app, &delivery) {
                // A heartbeat that is lost to a fault is made good by the next one.
                if let Err(error) = take(app, id, &report).await {
                    tracing::error!(%error, endpoint_id = %id, "a heartbeat could not be handled");
                }
            }
        }
        channel
            .basic_ack(last, BasicAckOptions { multiple: true })
            .await
            .map_err(at("acknowledging heartbeats"))?;
    }
    Ok(())
}

/// Reads a heartbeat; one that does not speak for its sender is counted and dropped.
fn report(app: &App, delivery: &Delivery) -> Option<(Uuid, StatusReport)> {
    let Some(sender) = sender(delivery.routing_key.as_str(), HEARTBEATS) else {
        app.metrics.heartbeat_dropped(DroppedHeartbeat::Malformed);
        return None;
    };
    match decode(&delivery.data) {
        Ok(Message::StatusReport(report)) if report.endpoint_id == sender => Some((sender, report)),
        Ok(Message::StatusReport(report)) => {
            app.metrics.heartbeat_dropped(DroppedHeartbeat::ForeignEndpoint);
            tracing::warn!(endpoint_id = %sender, claimed = %report.endpoint_id, "dropped a heartbeat: it speaks for another endpoint");
            None
        }
        Ok(Message::Task(_) | Message::Result(_)) => {
            app.metrics.heartbeat_dropped(DroppedHeartbeat::Malformed);
            tracing::warn!(endpoint_id = %sender, "dropped a message on the heartbeat queue that is no heartbeat");
            None
        }
        Err(error) => {
            app.metrics.heartbeat_dropped(DroppedHeartbeat::Malformed);
            tracing::warn!(endpoint_id = %sender, %error, "dropped a heartbeat that can't be read");
            None
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to a year before it is cast")]
fn period_ms(report: &StatusReport) -> i64 {
    if !report.is_active() || report.error().is_some() {
        return 0;
    }
    let seconds = report.heartbeat_period().unwrap_or(DEFAULT_PERIOD_SECONDS);
    (seconds.clamp(1.0, 31_536_000.0) * 1000.0) as i64
}

/// Whether the last of a task's entries says that its function was called.
fn is_running(entries: &Value) -> bool {
    let last = entries.as_array().and_then(|entries| entries.last());
    let state = last.and_then(|entry| entry.get("state")).and_then(Value::as_str);
    matches!(state, Some("execution-start" | "running"))
}

async fn take(app: &Arc<App>, id: Uuid, report: &StatusReport) -> Result<(), WorkError> {
    let figures = Value::Object(report.global_state.clone()).to_string();
    let outcome = app
        .store
        .heartbeat(id, clock::now(), period_ms(report), &figures)
        .await?;
    match outcome {
        HeartbeatOutcome::Unknown => {
            app.metrics.heartbeat_dropped(DroppedHeartbeat::UnknownEndpoint);
            tracing::warn!(endpoint_id = %id, "dropped a heartbeat: there is no such endpoint");
            return Ok(());
        }
        HeartbeatOutcome::Same => {}
        HeartbeatOutcome::CameOnline => {
            tracing::info!(endpoint_id = %id, "endpoint is online");
            user_endpoints::announce_work(app, id).await?;
        }
        HeartbeatOutcome::Stopped => {
            tracing::info!(endpoint_id = %id, error = report.error(), "endpoint has stopped");
            if let Some(error) = report.error() {
                user_endpoints::could_not_start(app, id, error).await?;
            } else {
                user_endpoints::stopped(app, id).await?;
            }
        }
    }
    let running: Vec<Uuid> = report
        .task_statuses
        .iter()
        .filter(|(_, entries)| is_running(entries))
        .filter_map(|(task, _)| Uuid::parse_str(task).ok())
        .collect();
    app.store.mark_running(id, &running).await?;
    app.metrics.heartbeats.inc();
    Ok(())
}
