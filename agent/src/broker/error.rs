use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::transport::with_advice;

/// Why there is no connection, or no consumer on it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The service gave a URL that can not be used. The URL holds a password and is not shown.
    #[error("the broker's URL for {what} can not be read: {why}")]
    Address {
        /// Which of the URLs.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The broker refuses the user, or the user's access to something that it needs.
    #[error("the broker refuses the credentials: {0}")]
    Refused(String),
    /// Another consumer holds the task queue.
    #[error("another agent consumes from the task queue")]
    ExclusiveUse,
    /// A delivery was held for longer than the broker allows.
    #[error("the broker closed the channel because a task was not acknowledged within {limit:?}")]
    ConsumerTimeout {
        /// The broker's limit.
        limit: Duration,
    },
    /// The broker cancelled the consumer, as it does when the queue is deleted.
    #[error("the broker cancelled the consumer of the task queue")]
    Cancelled,
    /// The endpoint was given other credentials.
    #[error("the credentials were replaced")]
    CredentialsReplaced,
    /// The endpoint let the queue go, for another agent to take it.
    #[error("the task queue was let go: the blocks could not be listed")]
    LetGo,
    /// Anything else: unreachable, closed, a missing queue.
    #[error("{0}")]
    Connection(String),
}

impl BrokerError {
    /// Reads what the broker, or the way to it, said.
    pub(super) fn from_lapin(error: &lapin::Error) -> Self {
        if let lapin::ErrorKind::IOError(cause) = error.kind() {
            return Self::Connection(with_advice(error.to_string(), cause.as_ref()));
        }
        let lapin::ErrorKind::ProtocolError(amqp) = error.kind() else {
            return Self::Connection(error.to_string());
        };
        let text = amqp.get_message().to_string();
        match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if text.contains("in exclusive use") => {
                Self::ExclusiveUse
            }
            // A connection that is closed for bad credentials carries the number of a channel's error.
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                Self::Refused(text)
            }
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => match consumer_timeout(&text) {
                Some(limit) => Self::ConsumerTimeout { limit },
                None => Self::Connection(text),
            },
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => Self::Connection(text),
        }
    }
}

/// Reads the limit out of RabbitMQ's text: "delivery acknowledgement on channel 1 timed out. Timeout value used:
/// 1800000 ms. This timeout value can be configured, ..." (3.8 to 4.x; the number is in milliseconds).
fn consumer_timeout(text: &str) -> Option<Duration> {
    let (_, after) = text.split_once("Timeout value used: ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumer_timeout_is_read_from_the_text_that_rabbitmq_closes_with() {
        let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. \
                    This timeout value can be configured, see consumers doc guide to learn more";
        assert_eq!(consumer_timeout(text), Some(Duration::from_secs(1800)));
        assert_eq!(consumer_timeout("PRECONDITION_FAILED - unknown delivery tag 7"), None);
    }
}
