//! Queues of endpoints that the broker has lost, with all that was in them: they are made again, and their tasks are
//! published again.
//!
//! A broker may be set up anew, a queue may be removed, and a node of RabbitMQ 4 that is killed within a second of a
//! quorum queue's declaration keeps of it no more than the name. An endpoint that holds some of these tasks gets them a
//! second time, under the same ids.

use std::collections::HashSet;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, ListedQueue, Live, endpoint_queue};
use crate::store::Endpoint;
use crate::{clock, outbox};

/// Tasks that the broker has had for less than this are not missed yet.
const MISSED_AFTER_MS: i64 = 15_000;

/// Makes the queues of all these endpoints that are not there.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn make_all(app: &App, live: &Live, endpoints: &[Endpoint]) -> Result<(), WorkError> {
    let present: HashSet<String> = list(app).await?.into_iter().map(|queue| queue.name).collect();
    for endpoint in endpoints {
        // Those that are there, too: the broker is asked to keep to what was declared.
        live.declare_endpoint_queue(endpoint).await?;
        if !present.contains(&endpoint_queue(endpoint.id, endpoint.registration.kind)) {
            outbox::publish_again(app, endpoint.id).await?;
        }
    }
    Ok(())
}

/// Makes queues again that the broker lists and can't use.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed; the next round of housekeeping tries again.
pub(crate) async fn replace_dead(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    // A queue that is dead shows nothing, like one that is idle.
    let suspects = list(app)
        .await?
        .into_iter()
        .filter(|queue| queue.is_quorum && queue.is_idle);
    let suspects: HashSet<String> = suspects.map(|queue| queue.name).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let before = clock::now().saturating_sub(MISSED_AFTER_MS);
    for endpoint in app.store.endpoints_with_tasks_sent(before).await? {
        let queue = endpoint_queue(endpoint.id, endpoint.registration.kind);
        // The list may be some seconds old.
        if suspects.contains(&queue)
            && live.queue_figures(&queue).await? == (0, 0)
            && app.broker.is_dead(&queue).await?
        {
            tracing::warn!(endpoint_id = %endpoint.id, "the broker can't use the endpoint's queue; it is made again");
            live.delete_queue(&queue).await?;
            live.declare_endpoint_queue(&endpoint).await?;
            outbox::publish_again(app, endpoint.id).await?;
        }
    }
    Ok(())
}

async fn list(app: &App) -> Result<Vec<ListedQueue>, BrokerError> {
    Ok(app.broker.management().queues().await?)
}
