//! What every part of the service shares.
//!
//! The rooms of the service, each of which may use those above it and its own files, and no other; a test
//! (`tests/rooms.rs`) holds them to it.
//!
//! | room | its one job |
//! |---|---|
//! | `clock`, `metrics`, `secrets` | the wall clock, the figures, random secrets and their hashes |
//! | `cli`, `config` | the options |
//! | `store` | all that outlives a request |
//! | `signing` | the key that id_tokens are signed with |
//! | `broker` | AMQP and the broker's management: connections, names, queues, users, publishing |
//! | `app` | the parts above, as one value |
//! | `revocation` | revoked clients lose their broker users |
//! | `results` | stores results and puts them on their clients' queues |
//! | `user_endpoints` | user endpoints and the commands that start them |
//! | `outbox` | tasks on their way to the broker |
//! | `lost_queues` | queues that the broker has lost are made again |
//! | `intake` | what comes in over AMQP, and the connection that it comes by |
//! | `clients`, `users`, `housekeeping` | client credentials; people; what is no longer needed goes away |
//! | `error`, `auth`, `api` | the calls |
//! | `check` | a client's way through a service that runs |
//! | `listener` | the connections of clients |
//! | `serve` | starts it all |

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError};
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::secrets::DerivedKey;
use crate::signing::Signer;
use crate::store::{Store, StoreError};

/// The service's parts. It holds no state that a second replica would miss.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) signer: Signer,
    /// With which the forms of sign-in pages are bound to the browsers that they were made for.
    pub(crate) form_key: DerivedKey,
    pub(crate) metrics: Metrics,
    /// Told when outbox entries of this replica are left over for the sweep.
    pub(crate) left_over: Notify,
    /// Submits that are answered and whose tasks are still to be noted as sent; a stop in order waits for them.
    pub(crate) handed_over: TaskTracker,
}

/// Why a piece of work that needs both the store and the broker was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The broker's fault.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}
