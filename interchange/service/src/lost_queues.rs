//! Queues that the broker has lost, with all that was in them: they are made again, and the tasks of endpoints' queues are
//! published again.
//!
//! A broker may be set up anew, a queue may be removed, and a node of RabbitMQ 4 that is killed within a second of a
//! quorum queue's declaration keeps of it no more than the name. An endpoint that holds some of these tasks gets them a
//! second time, under the same ids.

use std::collections::HashSet;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, Live, endpoint_queue, result_queue};
use crate::store::Endpoint;
use crate::{clock, user_endpoints};

/// Tasks that the broker has had for less than this are not missed yet.
const MISSED_AFTER_MS: i64 = 15_000;

/// Makes the queues that are not there: of all these endpoints, and of the task groups that wait for results.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn make_all(app: &App, live: &Live, endpoints: &[Endpoint]) -> Result<(), WorkError> {
    let queues = app.broker.management().queue_use().await.map_err(BrokerError::from)?;
    let present: HashSet<String> = queues.into_iter().map(|(name, _)| name).collect();
    // Before the tasks: a result without a queue to go to is one that nobody waits for.
    for group in app.store.groups_that_wait().await? {
        let queue = result_queue(group.owner, group.id);
        if !present.contains(&queue) {
            live.declare_result_queue(&queue).await?;
        }
    }
    for endpoint in endpoints {
        if present.contains(&endpoint_queue(endpoint.id, endpoint.registration.kind)) {
            // This says whether it has other options.
            live.declare_endpoint_queue(endpoint).await?;
        } else {
            user_endpoints::ensure_queue(app, live, endpoint).await?;
        }
    }
    Ok(())
}

/// Makes queues again that are gone, or that the broker lists and can't use.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed; the next round of housekeeping tries again.
pub(crate) async fn replace(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let before = clock::now().saturating_sub(MISSED_AFTER_MS);
    for endpoint in app.store.endpoints_with_missed_tasks(before).await? {
        if let Err(error) = replace_one(app, &live, &endpoint).await {
            tracing::warn!(%error, endpoint_id = %endpoint.id, "it can't be told whether the endpoint's queue is lost");
        }
    }
    Ok(())
}

async fn replace_one(app: &App, live: &Live, endpoint: &Endpoint) -> Result<(), WorkError> {
    let queue = endpoint_queue(endpoint.id, endpoint.registration.kind);
    // A queue that is dead shows nothing, like one that is idle.
    match live.is_idle(&queue).await? {
        // The broker takes a minute for this, in which another replica may have replaced the queue.
        Some(true) if app.broker.is_dead(&queue).await? => match live.is_idle(&queue).await? {
            Some(true) => live.delete_queue(&queue).await?,
            None => {}
            Some(false) => return Ok(()),
        },
        None => {}
        Some(_) => return Ok(()),
    }
    if app.store.endpoint(endpoint.id).await?.is_some() {
        user_endpoints::ensure_queue(app, live, endpoint).await?;
    }
    Ok(())
}
