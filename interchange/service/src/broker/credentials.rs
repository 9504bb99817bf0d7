//! Where clients and endpoints are told to connect, with which user.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, PublishArguments, QueueInfo};

use super::connection::Broker;
use super::names::{BrokerUser, HEARTBEATS, RESULTS, endpoint_queue, heartbeat_key, result_key};
use crate::store::{Client, Endpoint, EndpointKind};

impl Broker {
    fn url(&self, user: &BrokerUser, rotation: i64) -> SecretString {
        let mut url: Url = self.public_url().clone();
        // The URL was checked to have a host, so a user can be set.
        let _ = url.set_username(&user.name());
        let _ = url.set_password(Some(self.password(user, rotation).expose_secret()));
        SecretString::from(String::from(url))
    }

    /// How a client connects for its results.
    pub(crate) fn client_url(&self, client: &Client) -> SecretString {
        self.url(&BrokerUser::Client(client.id), client.rotation)
    }

    /// How a direct endpoint or user endpoint connects.
    pub(crate) fn endpoint_credentials(&self, endpoint: &Endpoint) -> AmqpCredentials {
        let kind = endpoint.registration.kind;
        let url = self.url(&BrokerUser::Endpoint(endpoint.id, kind), endpoint.rotation);
        let url = url.expose_secret();
        AmqpCredentials {
            endpoint_id: endpoint.id,
            task_queue_info: consumed(url, endpoint.id, kind),
            result_queue_info: published(url, RESULTS, result_key(endpoint.id)),
            heartbeat_queue_info: published(url, HEARTBEATS, heartbeat_key(endpoint.id)),
        }
    }

    /// How a template endpoint connects: its commands and its heartbeats.
    pub(crate) fn template_queues(&self, endpoint: &Endpoint) -> (QueueInfo, QueueInfo) {
        let user = BrokerUser::Endpoint(endpoint.id, EndpointKind::Template);
        let url = self.url(&user, endpoint.rotation);
        let url = url.expose_secret();
        (
            consumed(url, endpoint.id, EndpointKind::Template),
            published(url, HEARTBEATS, heartbeat_key(endpoint.id)),
        )
    }
}

fn published(connection_url: &str, exchange: &str, routing_key: String) -> QueueInfo {
    QueueInfo {
        connection_url: connection_url.to_owned(),
        queue: exchange.to_owned(),
        exchange: Some(exchange.to_owned()),
        queue_publish_kwargs: Some(PublishArguments {
            exchange: exchange.to_owned(),
            routing_key,
            mandatory: None,
            properties: None,
        }),
    }
}

fn consumed(connection_url: &str, id: Uuid, kind: EndpointKind) -> QueueInfo {
    QueueInfo {
        connection_url: connection_url.to_owned(),
        queue: endpoint_queue(id, kind),
        exchange: None,
        queue_publish_kwargs: None,
    }
}
