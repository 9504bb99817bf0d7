//! Keeps the tokens of a running endpoint fresh, so that a fault of its credentials is known before they are needed, and
//! takes up credentials that change under it.

use std::time::Duration;

use endpoint_back_off::BackOff;

use super::scope::Scope;
use super::tokens::Tokens;
use super::watch::FolderWatch;

/// A token is renewed at the soonest after so long, however short its life is.
const SHORTEST: Duration = Duration::from_secs(5);
/// Credentials that are refused, or a service that is away, are tried again after the first, and later after the
/// second.
const RETRY: Duration = Duration::from_secs(15);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Renews the tokens before they expire, and at once when the credentials change. Does not end.
pub async fn keep_fresh(tokens: &Tokens) {
    let mut changes = FolderWatch::new(tokens.credentials.watched());
    let mut back_off = BackOff::new(RETRY, RETRY_MAX);
    loop {
        let mut wait = match tokens.data(Scope::Compute).await {
            Ok(data) => {
                back_off.reset();
                // Many endpoints that started together must not come back together.
                let life = data.good_for();
                life.mul_f64(rand::random_range(0.9..=1.0)).max(SHORTEST)
            }
            Err(error) => {
                tracing::debug!(%error, "there is no token");
                back_off.next_wait()
            }
        };
        if let Err(error) = tokens.forget_replaced().await {
            tracing::warn!(%error, "the tokens of the login before can not be removed from the state; it is tried again");
            wait = wait.min(RETRY);
        }
        let changed = async {
            loop {
                changes.changed().await;
                if tokens.would_gain().await {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed => back_off.reset(),
        }
    }
}
