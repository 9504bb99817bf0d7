//! RabbitMQ: connections, queues, users and publishing. The topology is in [`names`].

mod connection;
mod credentials;
mod management;
mod names;
mod publisher;
mod withdraw;

use std::time::Duration;

pub(crate) use connection::{BROKER_USER_FRESH, Broker, Live, at_most, classic, failure, new_channel};
pub(crate) use management::Management;
pub(crate) use names::{BrokerUser, HEARTBEATS, RESULTS, endpoint_queue, result_queue, result_queue_prefix, sender};
pub(crate) use publisher::{BODY_MAX, HEADERS_MAX, Outgoing, Published, Publisher, persistent};
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
    /// The broker closed a channel that was published on.
    #[error(
        "the broker closed the channel of {what}: its own log says why, such as a message over its max_message_size"
    )]
    ChannelClosed {
        /// What was published.
        what: &'static str,
    },
    /// The broker did not answer in time: it may be blocked by an alarm.
    #[error("the broker did not answer at {what} within {} s", PATIENCE.as_secs())]
    Silent {
        /// What was being done.
        what: &'static str,
    },
    /// The management API failed.
    #[error(transparent)]
    Management(#[from] management::ManagementError),
}

/// How long an answer of the broker is waited for. One that has an alarm reads nothing from a connection that has
/// published, until the alarm is over.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for an answer, but for no longer than [`PATIENCE`].
async fn answer<T>(what: &'static str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answered) => answered.map_err(at(what)),
        Err(_) => Err(BrokerError::Silent { what }),
    }
}

/// Names what was being done when AMQP failed.
pub(crate) fn at(what: &'static str) -> impl FnOnce(lapin::Error) -> BrokerError {
    move |source| BrokerError::Amqp { what, source }
}
