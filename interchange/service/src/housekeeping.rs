//! Removes what is no longer needed.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::broker::{BrokerError, BrokerUser, endpoint_queue};
use crate::{clock, user_endpoints};

/// Cleans up again and again, until `stop`.
pub(crate) async fn keep(app: Arc<App>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(app.settings.housekeeping_period) => {}
        }
        if let Err(error) = app.store.delete_expired_tokens(clock::now()).await {
            tracing::warn!(%error, "tokens that are over could not be removed");
        }
    }
}

/// Removes queues and broker users of deleted endpoints, and gives their tasks an error.
///
/// # Errors
/// [`BrokerError`]: the store or the broker failed; the next round tries again.
pub(crate) async fn remove_deleted_endpoints(app: &App) -> Result<(), BrokerError> {
    let live = app.broker.live()?;
    for (id, kind) in app.store.deleted_endpoints_with_broker_user().await? {
        let user = BrokerUser::Endpoint(id, kind);
        app.broker.management().delete_user(&user.name()).await?;
        live.delete_queue(&endpoint_queue(id, kind)).await?;
        user_endpoints::give_up_deleted(app, id).await?;
        app.store.set_endpoint_broker_user(id, false).await?;
        app.metrics.cleaned.with_label_values(&["endpoint"]).inc();
    }
    Ok(())
}
