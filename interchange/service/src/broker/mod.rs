//! RabbitMQ: connections, queues, users and publishing. The topology is in [`names`].

mod connection;
mod credentials;
mod management;
mod names;
mod publisher;
mod withdraw;

pub(crate) use connection::{BROKER_USER_FRESH, Broker, Live, at_most, classic, failure, new_channel};
pub(crate) use management::Management;
pub(crate) use names::{BrokerUser, HEARTBEATS, RESULTS, endpoint_queue, result_queue, result_queue_prefix, sender};
pub(crate) use publisher::{Outgoing, Published, persistent};
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
}

/// Names what was being done when AMQP failed.
pub(crate) fn at(what: &'static str) -> impl FnOnce(lapin::Error) -> BrokerError {
    move |source| BrokerError::Amqp { what, source }
}
