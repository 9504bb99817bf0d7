//! RabbitMQ: connections, queues, users, and what comes in over it. The topology is in [`names`].

mod connection;
mod credentials;
mod heartbeats;
mod management;
mod names;
mod publisher;
mod results;
mod withdraw;

pub(crate) use connection::{Broker, Live, keep_connected};
pub(crate) use credentials::{client_url, endpoint_credentials, template_queues};
pub(crate) use management::percent_decode;
pub(crate) use names::{BrokerUser, endpoint_queue, result_queue, result_queue_prefix};
pub(crate) use publisher::{Outgoing, Published};
pub(crate) use results::{forward_all, persistent, settle as give_up};
pub(crate) use withdraw::withdraw;

/// Why the broker could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// A URL is not understood. It is not shown, for it has a password.
    #[error("a URL of the broker is not understood; it must be like amqp://user:password@host:5672/%2F")]
    Url,
    /// There is no connection now; one is being made.
    #[error("there is no connection to the broker")]
    Disconnected,
    /// The broker refused something, or the connection broke.
    #[error("the broker failed at {what}: {source}")]
    Amqp {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: lapin::Error,
    },
    /// The management API failed.
    #[error(transparent)]
    Management(#[from] management::ManagementError),
    /// The store failed in the course of it.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Names what was being done when AMQP failed.
fn at(what: &'static str) -> impl FnOnce(lapin::Error) -> BrokerError {
    move |source| BrokerError::Amqp { what, source }
}
