//! Revoked clients lose their broker users, and those of their endpoints: the broker then closes their connections.

use crate::app::WorkError;
use crate::broker::{BrokerError, BrokerUser, Management};
use crate::store::Store;

/// Removes every broker user that a revoked client still has; how many. It may be done by several processes at once.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed; what is left is removed by the next call.
pub(crate) async fn carry_out(store: &Store, management: &Management) -> Result<u64, WorkError> {
    let mut removed = 0;
    for (id, kind) in store.endpoints_of_revoked().await? {
        let user = BrokerUser::Endpoint(id, kind);
        management.delete_user(&user).await.map_err(BrokerError::from)?;
        store.set_endpoint_broker_user(id, 0).await?;
        removed += 1;
    }
    for client in store.clients().await? {
        if client.revoked_at.is_some() && client.has_broker_user() {
            let user = BrokerUser::Client(client.id);
            management.delete_user(&user).await.map_err(BrokerError::from)?;
            store.set_client_broker_user(client.id, 0).await?;
            removed += 1;
        }
    }
    Ok(removed)
}
