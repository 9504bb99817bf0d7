//! Queues of endpoints that the broker has lost, with all that was in them: they are made again, and their tasks are
//! published again.
//!
//! A broker may be set up anew, a queue may be removed, and a node of RabbitMQ 4 that is killed within a second of a
//! quorum queue's declaration keeps of it no more than the name. An endpoint that holds some of these tasks gets them a
//! second time, under the same ids.

use std::collections::HashSet;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, Live, endpoint_queue};
use crate::store::Endpoint;
use crate::{clock, outbox};

/// Tasks that the broker has had for less than this are not missed yet.
const MISSED_AFTER_MS: i64 = 15_000;

/// Makes the queues of all these endpoints that are not there.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn make_all(app: &App, live: &Live, endpoints: &[Endpoint]) -> Result<(), WorkError> {
    let queues = app.broker.management().queue_use().await.map_err(BrokerError::from)?;
    let present: HashSet<String> = queues.into_iter().map(|(name, _)| name).collect();
    for endpoint in endpoints {
        // Of those that are there this says whether they have other options.
        live.declare_endpoint_queue(endpoint).await?;
        if !present.contains(&endpoint_queue(endpoint.id, endpoint.registration.kind)) {
            outbox::publish_again(app, endpoint.id).await?;
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
    for endpoint in app.store.endpoints_with_tasks_sent(before).await? {
        let queue = endpoint_queue(endpoint.id, endpoint.registration.kind);
        // A queue that is dead shows nothing, like one that is idle.
        match live.is_idle(&queue).await? {
            Some(true) if app.broker.is_dead(&queue).await? => live.delete_queue(&queue).await?,
            None => {}
            Some(_) => continue,
        }
        outbox::make_queue_again(app, &live, &endpoint).await?;
    }
    Ok(())
}
