//! What every part of the service shares.

use crate::auth::ServerKey;
use crate::broker::Broker;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::store::Store;

/// The service's parts. It holds no state that a second replica would miss.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) key: ServerKey,
    pub(crate) metrics: Metrics,
}
