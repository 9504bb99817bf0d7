use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where one kind of message is consumed or published, as the service tells an endpoint.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// `amqp://user:password@host:port/vhost?...`. It holds a password: it must not be logged.
    pub connection_url: String,
    /// The queue to consume from, or to check passively before publishing.
    pub queue: String,
    /// The exchange to publish to; absent where one only consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// What every publish must carry; absent where one only consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_publish_kwargs: Option<PublishArguments>,
}

/// The arguments of a publish, used as the service gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishArguments {
    /// The exchange.
    pub exchange: String,
    /// The routing key, which the broker checks against the sender's permissions.
    pub routing_key: String,
    /// Return the message rather than drop it when no queue is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandatory: Option<bool>,
    /// AMQP basic properties by their field names, such as `delivery_mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

impl fmt::Debug for QueueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueInfo")
            .field("connection_url", &"(secret)")
            .field("queue", &self.queue)
            .field("exchange", &self.exchange)
            .field("queue_publish_kwargs", &self.queue_publish_kwargs)
            .finish()
    }
}
