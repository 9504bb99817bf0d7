//! Results as they come from the endpoints.
//!
//! A delivery is acknowledged after its result is settled: stored, and confirmed on the client's queue. If this process
//! dies in between, the delivery comes again, to this or another replica.

use std::sync::Arc;

use bytes::Bytes;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use waypost_protocol::{Message, State, TaskResult, decode};

use super::consumer::{BATCH_MAX, consumer, next_batch};
use crate::app::App;
use crate::broker::{BrokerError, Live, RESULTS, at, at_most, new_channel, sender};
use crate::clock;
use crate::metrics::Dropped;
use crate::results::settle;
use crate::store::Arrival;

/// The most deliveries that may be waiting here, acknowledged by none.
const WINDOW_MAX: u16 = BATCH_MAX;
/// The window before anything is known of the results' sizes: they may all be as large as results can be.
const WINDOW_AT_START: u16 = 8;
/// The least window.
const WINDOW_MIN: u16 = 4;
/// How much larger a window may be than the one before: what is known of few results says little of hundreds.
const WINDOW_GROWTH: u16 = 4;
/// The bytes that may be waiting here, if all deliveries have the mean size.
const WINDOW_BYTES: usize = 128 << 20;

/// The window for results of this mean size, unless it is near the one there is.
fn next_window(window: u16, mean_bytes: usize) -> Option<u16> {
    let fitting = u16::try_from(WINDOW_BYTES / mean_bytes.max(1)).unwrap_or(u16::MAX);
    let wanted = fitting
        .min(window.saturating_mul(WINDOW_GROWTH))
        .clamp(WINDOW_MIN, WINDOW_MAX);
    let is_near = wanted > window / 2 && wanted < window.saturating_mul(2) && wanted != WINDOW_MAX;
    (!is_near && wanted != window).then_some(wanted)
}

/// Handles results until the consumer ends.
pub(super) async fn consume(app: &Arc<App>, live: &Arc<Live>, connection: &Connection) -> Result<(), BrokerError> {
    let mut window = WINDOW_AT_START;
    let mut known_mean = None;
    loop {
        let channel = new_channel(connection).await?;
        let mut consumer = consumer(&channel, RESULTS, window).await?;
        let next = loop {
            let Some(batch) = next_batch(&mut consumer).await else {
                break None;
            };
            let batch = batch.map_err(at("consuming results"))?;
            let Some(last) = batch.last().map(|delivery| delivery.delivery_tag) else {
                continue;
            };
            let bytes: usize = batch.iter().map(|delivery| delivery.data.len()).sum();
            let mean = bytes / batch.len();
            let mean_bytes = known_mean.map_or(mean, |known| usize::midpoint(known, mean));
            known_mean = Some(mean_bytes);
            let timer = app.metrics.result_batch_seconds.start_timer();
            let arrivals: Vec<Arrival> = batch
                .into_iter()
                .filter_map(|delivery| arrival(app, delivery))
                .collect();
            settle(app, live, arrivals).await?;
            channel
                .basic_ack(last, BasicAckOptions { multiple: true })
                .await
                .map_err(at("acknowledging results"))?;
            timer.observe_duration();
            if let Some(next) = next_window(window, mean_bytes) {
                break Some(next);
            }
        };
        let Some(next) = next else { return Ok(()) };
        tracing::debug!(
            window = next,
            mean_bytes = known_mean,
            "changed the prefetch window of results"
        );
        window = next;
        // What was delivered and not handled goes back to its queue, and comes again by the next channel.
        at_most(channel.close(200, "changing the window".into())).await;
    }
}

/// Reads a delivery; what is no result is counted and dropped.
fn arrival(app: &App, delivery: Delivery) -> Option<Arrival> {
    let Some(sender) = sender(delivery.routing_key.as_str(), RESULTS) else {
        app.metrics.dropped(Dropped::Malformed);
        tracing::warn!(
            key = delivery.routing_key.as_str(),
            "dropped a result: its routing key names no endpoint"
        );
        return None;
    };
    let result = match decode(&delivery.data) {
        Ok(Message::Result(result)) => result,
        Ok(Message::Task(_) | Message::StatusReport(_)) => {
            app.metrics.dropped(Dropped::Malformed);
            tracing::warn!(endpoint_id = %sender, "dropped a message on the result queue that is no result");
            return None;
        }
        Err(error) => {
            app.metrics.dropped(Dropped::Malformed);
            tracing::warn!(endpoint_id = %sender, %error, "dropped a result that can't be read");
            return None;
        }
    };
    Some(Arrival {
        task_id: result.task_id,
        sender: Some(sender),
        failed: result.error_details.is_some(),
        started_at: moment(&result, State::ExecutionStart),
        ended_at: moment(&result, State::ExecutionEnd),
        body: Bytes::from(delivery.data),
    })
}

/// When a task came to a state, by the worker's clock.
fn moment(result: &TaskResult, state: State) -> Option<clock::Milliseconds> {
    let entry = result.task_statuses.iter().find(|entry| entry.state == state)?;
    Some(entry.timestamp / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_size_of_results() {
        assert_eq!(next_window(WINDOW_AT_START, 500), Some(32));
        assert_eq!(next_window(32, 500), Some(128));
        assert_eq!(next_window(128, 500), Some(WINDOW_MAX));
        assert_eq!(next_window(WINDOW_MAX, 500), None);
        assert_eq!(next_window(WINDOW_AT_START, 10 << 20), None, "near enough");
        assert_eq!(next_window(WINDOW_MAX, 10 << 20), Some(12));
        assert_eq!(next_window(12, 9 << 20), None, "near enough");
        assert_eq!(next_window(12, 100 << 20), Some(WINDOW_MIN));
        assert_eq!(next_window(WINDOW_MIN, 100 << 20), None);
    }
}
