//! Removes what is no longer needed, and sees after what was left half done.
//!
//! Everything here may be done by two replicas at once, and again after a failure.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, BrokerUser, Live, endpoint_queue, result_queue};
use crate::metrics::Cleaned;
use crate::results::forward_all;
use crate::{clock, lost_queues, revocation, user_endpoints};

/// Results of the service's own making that were stored and, after so long, not forwarded, are forwarded here.
const FORWARD_AFTER_MS: i64 = 30_000;
/// A user endpoint that is silent for so long although tasks wait is started again.
const NUDGE_AFTER_MS: i64 = 60_000;
/// For so long after its end a code is remembered, so that a thief who uses it again is noticed, and for so long attempts
/// to sign in are counted.
const OLD_SIGN_IN_MS: i64 = 24 * 3_600_000;
/// Results that are forwarded at once: each may have 10 MiB.
const FORWARD_LIMIT: i64 = 32;
/// Rows that are deleted in one transaction.
const DELETE_LIMIT: i64 = 1_000;

/// Cleans up again and again, until `stop`.
pub(crate) async fn keep(app: Arc<App>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(app.settings.housekeeping_period) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = round(&app) => {}
        }
    }
}

/// One round. What fails is logged and left to the next one.
async fn round(app: &App) {
    log("tokens", remove_expired_tokens(app).await);
    log("old tasks", remove_old_tasks(app).await);
    log("unused user endpoints", retire_user_endpoints(app).await);
    log("deleted endpoints", remove_deleted_endpoints(app).await);
    log("revoked clients", remove_revoked(app).await);
    log("lost queues", lost_queues::replace(app).await);
    log("result queues", remove_idle_queues(app).await);
    log("results", forward_results(app).await);
    log("silent user endpoints", nudge(app).await);
}

fn log(what: &str, outcome: Result<(), WorkError>) {
    match outcome {
        Ok(()) | Err(WorkError::Broker(BrokerError::Disconnected)) => {}
        Err(error) => tracing::warn!(%error, "housekeeping failed at {what}; it will try again"),
    }
}

async fn remove_expired_tokens(app: &App) -> Result<(), WorkError> {
    let now = clock::now();
    app.metrics
        .cleaned(Cleaned::Token, app.store.delete_expired_tokens(now).await?);
    let unused_since = now.saturating_sub(clock::milliseconds(app.settings.refresh_token_life));
    let deleted = app
        .store
        .delete_old_sign_ins(unused_since, now.saturating_sub(OLD_SIGN_IN_MS))
        .await?;
    app.metrics.cleaned(Cleaned::SignIn, deleted);
    Ok(())
}

async fn remove_old_tasks(app: &App) -> Result<(), WorkError> {
    let now = clock::now();
    let ended = now.saturating_sub(clock::milliseconds(app.settings.task_life));
    let received = now.saturating_sub(clock::milliseconds(app.settings.unread_task_life));
    loop {
        let deleted = app.store.delete_old_tasks(ended, received, DELETE_LIMIT).await?;
        app.metrics.cleaned(Cleaned::Task, deleted);
        if deleted == 0 {
            break;
        }
    }
    app.metrics
        .cleaned(Cleaned::TaskGroup, app.store.delete_empty_groups(ended).await?);
    Ok(())
}

/// A user endpoint lives as long as a task that was read: whoever submits to it again gets it back.
async fn retire_user_endpoints(app: &App) -> Result<(), WorkError> {
    let now = clock::now();
    let before = now.saturating_sub(clock::milliseconds(app.settings.task_life));
    app.store.retire_user_endpoints(before, now).await?;
    Ok(())
}

/// Removes queues and broker users of deleted endpoints, and gives their tasks an error.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed; the next round tries again.
pub(crate) async fn remove_deleted_endpoints(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    for (id, kind) in app.store.uncleaned_endpoints().await? {
        app.broker.delete_user(&BrokerUser::Endpoint(id, kind)).await?;
        live.delete_queue(&endpoint_queue(id, kind)).await?;
        user_endpoints::give_up_deleted(app, id).await?;
        app.store.mark_cleaned(id, clock::now()).await?;
        app.metrics.cleaned(Cleaned::Endpoint, 1);
    }
    Ok(())
}

/// What a process that revokes clients could not do itself.
async fn remove_revoked(app: &App) -> Result<(), WorkError> {
    let removed = revocation::carry_out(&app.store, app.broker.management()).await?;
    app.metrics.cleaned(Cleaned::BrokerUser, removed);
    Ok(())
}

/// Removes result queues of groups whose tasks are all done, once they were seen empty and without a consumer for a
/// while. The broker itself removes those that nobody ever reads.
async fn remove_idle_queues(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let now = clock::now();
    let before = now.saturating_sub(clock::milliseconds(app.settings.idle_queue_life));
    let groups = app.store.groups_with_idle_work(before).await?;
    if groups.is_empty() {
        return Ok(());
    }
    let queues: HashMap<String, u64> = app
        .broker
        .management()
        .queue_use()
        .await
        .map_err(BrokerError::from)?
        .into_iter()
        .collect();
    let mut gone = Vec::new();
    let mut used = Vec::new();
    let mut idle = Vec::new();
    let mut over: Vec<(Uuid, String)> = Vec::new();
    for group in groups {
        let name = result_queue(group.owner, group.id);
        match (queues.get(&name), group.queue_idle_since) {
            (None, _) => gone.push(group.id),
            (Some(0), None) => idle.push(group.id),
            (Some(0), Some(since)) if since < before => over.push((group.id, name)),
            (Some(0), Some(_)) | (Some(_), None) => {}
            (Some(_), Some(_)) => used.push(group.id),
        }
    }
    app.store.forget_queues(&gone, before).await?;
    app.store.set_queue_idle(&used, None).await?;
    app.store.set_queue_idle(&idle, Some(now)).await?;
    for (group, name) in over {
        let removed = app
            .store
            .retire_queue(group, before, clock::now(), remove_queue(&live, &name))
            .await?;
        if removed {
            app.metrics.cleaned(Cleaned::ResultQueue, 1);
        } else {
            app.store.set_queue_idle(&[group], None).await?;
        }
    }
    Ok(())
}

async fn remove_queue(live: &Live, name: &str) -> bool {
    match live.delete_unused_queue(name).await {
        Ok(removed) => removed,
        Err(error) => {
            tracing::warn!(%error, queue = name, "an idle queue could not be removed");
            false
        }
    }
}

/// Forwards results that were stored and not forwarded: when this service gives up a task there is no delivery that
/// would come again after a crash.
async fn forward_results(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let before = clock::now().saturating_sub(FORWARD_AFTER_MS);
    loop {
        let results = app.store.unforwarded_results(before, FORWARD_LIMIT).await?;
        if results.is_empty() {
            return Ok(());
        }
        forward_all(app, &live, results).await?;
    }
}

/// Starts user endpoints again that are silent although tasks wait and their template endpoint is there.
async fn nudge(app: &App) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let now = clock::now();
    let silent = app
        .store
        .nudge_silent_user_endpoints(now.saturating_sub(NUDGE_AFTER_MS), now)
        .await?;
    if !silent.is_empty() {
        tracing::info!(
            user_endpoints = silent.len(),
            "sending start commands again: user endpoints are silent"
        );
        user_endpoints::send_start_commands(app, &live, &silent).await?;
    }
    Ok(())
}
