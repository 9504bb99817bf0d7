//! Results: into the store and on to their clients' queues.
//!
//! A result is safe when it is stored and the broker has confirmed it on the client's queue. If this process dies in
//! between, it comes again, from the broker or from housekeeping, here or at another replica: one that is stored and not
//! yet forwarded is forwarded then, one that was forwarded is dropped.

use std::time::Duration;

use uuid::Uuid;

use crate::app::App;
use crate::broker::{BrokerError, Live, Outgoing, Published, at_most, persistent, result_queue};
use crate::clock;
use crate::metrics::Dropped;
use crate::store::{Arrival, Settlement, StoredResult};

/// The pause before a batch is tried again that the store or the broker did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

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
                Published::Refused | Published::Unknown => {
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
