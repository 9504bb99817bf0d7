//! Results: from the endpoints to the store and on to their clients' queues.
//!
//! A delivery is acknowledged after its result is stored and the broker has confirmed it on the client's queue. If this
//! process dies in between, the delivery comes again, to this or another replica: a result that is stored and not yet
//! forwarded is forwarded then, one that was forwarded is dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use uuid::Uuid;
use waypost_protocol::{Message, State, TaskResult, decode};

use super::connection::{Live, at_most, new_channel};
use super::names::{RESULTS, result_queue, sender};
use super::publisher::{Outgoing, Published};
use super::{BrokerError, at};
use crate::app::App;
use crate::clock;
use crate::metrics::Dropped;
use crate::store::{Arrival, Settlement, StoredResult};

/// The most deliveries that may be waiting here, acknowledged by none.
const WINDOW_MAX: u16 = 250;
/// The window before anything is known of the results' sizes.
const WINDOW_AT_START: u16 = 32;
/// The least window.
const WINDOW_MIN: u16 = 4;
/// The bytes that may be waiting here, if all deliveries have the mean size.
const WINDOW_BYTES: usize = 128 << 20;
/// The bytes of results that are handled in one batch, unless a single one is larger.
const BATCH_BYTES: usize = 32 << 20;
/// The pause before a batch is tried again that the store or the broker did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Takes what is ready, up to a limit, without waiting for more.
pub(super) async fn next_batch(consumer: &mut Consumer) -> Option<lapin::Result<Vec<Delivery>>> {
    let mut bytes = 0;
    let mut batch = Vec::new();
    loop {
        let next = if batch.is_empty() {
            consumer.next().await
        } else if batch.len() >= usize::from(WINDOW_MAX) || bytes >= BATCH_BYTES {
            return Some(Ok(batch));
        } else {
            match consumer.next().now_or_never() {
                None => return Some(Ok(batch)),
                Some(next) => next,
            }
        };
        match next {
            Some(Ok(delivery)) => {
                bytes += delivery.data.len();
                batch.push(delivery);
            }
            Some(Err(error)) => return Some(Err(error)),
            None => return None,
        }
    }
}

/// A consumer of one of the service's queues, that holds at most `window` deliveries.
pub(super) async fn consumer(channel: &Channel, queue: &str, window: u16) -> Result<Consumer, BrokerError> {
    channel
        .basic_qos(window, BasicQosOptions::default())
        .await
        .map_err(at("setting the prefetch window"))?;
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(at("consuming"))
}

/// The window for results of this mean size, unless it is near the one there is.
fn next_window(window: u16, mean_bytes: usize) -> Option<u16> {
    let fitting = u16::try_from(WINDOW_BYTES / mean_bytes.max(1)).unwrap_or(u16::MAX);
    let wanted = fitting.clamp(WINDOW_MIN, WINDOW_MAX);
    let is_near = wanted > window / 2 && wanted < window.saturating_mul(2) && wanted != WINDOW_MAX;
    (!is_near && wanted != window).then_some(wanted)
}

/// Handles results until the consumer ends.
pub(super) async fn consume(app: &Arc<App>, live: &Arc<Live>, connection: &Connection) -> Result<(), BrokerError> {
    let mut window = WINDOW_AT_START;
    let mut mean_bytes = 0;
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
            mean_bytes = usize::midpoint(mean_bytes, bytes / batch.len());
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
        tracing::debug!(window = next, mean_bytes, "changed the prefetch window of results");
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

/// Stores results, forwards them, and returns when both are done.
///
/// # Errors
/// [`BrokerError`]: the connection is lost; what was not forwarded is forwarded when its delivery comes again.
pub(crate) async fn settle(app: &App, live: &Live, arrivals: Vec<Arrival>) -> Result<(), BrokerError> {
    if arrivals.is_empty() {
        return Ok(());
    }
    let summary: Vec<(Uuid, Option<Uuid>, bool)> = arrivals
        .iter()
        .map(|arrival| (arrival.task_id, arrival.sender, arrival.failed))
        .collect();
    let settlements = loop {
        match app.store.store_results(&arrivals, clock::now()).await {
            Ok(settlements) => break settlements,
            Err(error) => {
                tracing::error!(%error, "results can't be stored; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    };
    let now = clock::now();
    let mut forward = Vec::new();
    for ((task_id, sender, failed), settlement) in summary.into_iter().zip(settlements) {
        match settlement {
            Settlement::Forward {
                result,
                is_first,
                received_at,
            } => {
                if is_first {
                    app.metrics.result(failed, now.saturating_sub(received_at));
                    tracing::debug!(%task_id, failed, "a result came");
                }
                forward.push(result);
            }
            Settlement::Duplicate => {
                app.metrics.dropped(Dropped::Duplicate);
                tracing::info!(%task_id, "dropped a result: its task has one already");
            }
            Settlement::Unknown => {
                app.metrics.dropped(Dropped::UnknownTask);
                tracing::warn!(%task_id, endpoint_id = sender.map(tracing::field::display), "dropped a result: there is no such task");
            }
            Settlement::Foreign => {
                app.metrics.dropped(Dropped::ForeignTask);
                tracing::warn!(%task_id, endpoint_id = sender.map(tracing::field::display), "dropped a result: its task was not sent to that endpoint");
            }
        }
    }
    forward_all(app, live, forward).await
}

/// Puts stored results on their clients' queues.
///
/// # Errors
/// [`BrokerError`]: the connection is lost; housekeeping forwards what was not.
pub(crate) async fn forward_all(app: &App, live: &Live, forward: Vec<StoredResult>) -> Result<(), BrokerError> {
    let seconds = u64::try_from(clock::now() / 1000).unwrap_or_default();
    let mut without_queue = Vec::new();
    let mut ids = Vec::with_capacity(forward.len());
    let mut messages = Vec::with_capacity(forward.len());
    for result in forward {
        let Some((owner, group)) = result.queue else {
            without_queue.push(result.task_id);
            continue;
        };
        ids.push(result.task_id);
        messages.push(Outgoing {
            queue: result_queue(owner, group),
            body: result.body,
            properties: persistent().with_timestamp(seconds),
        });
    }
    mark_forwarded(app, &without_queue).await;
    while !ids.is_empty() {
        let outcomes = live.forwarder.publish(&messages).await;
        let mut done = Vec::with_capacity(ids.len());
        let mut left = (Vec::new(), Vec::new());
        for ((id, message), outcome) in ids.into_iter().zip(messages).zip(outcomes) {
            match outcome {
                Published::Confirmed => {
                    app.metrics.results_forwarded.inc();
                    done.push(id);
                }
                // The client has not used its queue for long: it can still ask for the result.
                Published::NoQueue => done.push(id),
                Published::Unknown => {
                    left.0.push(id);
                    left.1.push(message);
                }
            }
        }
        mark_forwarded(app, &done).await;
        (ids, messages) = left;
        if !ids.is_empty() {
            // Without a connection this fails and ends the loop.
            at_most(live.channel().await?.close(200, "done".into())).await;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
    Ok(())
}

async fn mark_forwarded(app: &App, tasks: &[Uuid]) {
    while let Err(error) = app.store.mark_forwarded(tasks, clock::now()).await {
        tracing::error!(%error, "results can't be marked as forwarded; trying again");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The properties of a message that outlives a restart of the broker.
pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_size_of_results() {
        assert_eq!(next_window(WINDOW_AT_START, 500), Some(WINDOW_MAX));
        assert_eq!(next_window(WINDOW_MAX, 500), None);
        assert_eq!(next_window(WINDOW_AT_START, 10 << 20), Some(12));
        assert_eq!(next_window(12, 9 << 20), None, "near enough");
        assert_eq!(next_window(12, 100 << 20), Some(WINDOW_MIN));
        assert_eq!(next_window(WINDOW_MIN, 100 << 20), None);
    }
}
