use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use waypost_protocol::QueueInfo;

use super::BrokerError;
use super::properties::{Publication, short};
use crate::transport::own_certificates;

/// Agreed with the broker, so that a frozen holder of the task queue is replaced within three of them.
const HEARTBEAT_SECONDS: u16 = 10;
/// RabbitMQ's own limit. It sends all headers of a message in one frame, also if that is larger than agreed here, and
/// lapin ends the connection for it: the task comes again, and so on for ever. lapin keeps 32 frames of buffer for each
/// direction, so a busy connection has 8 MiB; of one that is idle hardly anything is ever touched.
const FRAME_BYTES_MAX: u32 = 128 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to where a queue info points.
pub(super) async fn connect(info: &QueueInfo, what: &'static str, name: &str) -> Result<Arc<Connection>, BrokerError> {
    let uri = address(info).map_err(|why| BrokerError::Address { what, why })?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: own_certificates(|name| std::env::var(name).ok())
            .map_err(|error| BrokerError::Connection(error.to_string()))?
            .map(|(_, pem)| pem),
    };
    let runtime = lapin::runtime::default_runtime().map_err(|error| BrokerError::from_lapin(&error))?;
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(Arc::new(connection)),
        Ok(Err(error)) => Err(BrokerError::from_lapin(&error)),
        Err(_) => Err(BrokerError::Connection(format!(
            "the broker did not answer within {CONNECT_TIMEOUT:?}"
        ))),
    }
}

/// What is dialled, with what we ask of a connection.
fn address(info: &QueueInfo) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = info.connection_url.parse()?;
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    uri.query.frame_max = Some(FRAME_BYTES_MAX);
    Ok(uri)
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    connection
        .create_channel()
        .await
        .map_err(|error| BrokerError::from_lapin(&error))
}

/// Opens a channel that publishes with confirms, after checking as upstream does that the exchange and the queue exist.
pub(super) async fn publishing_channel(
    connection: &Connection,
    info: &QueueInfo,
    publication: &Publication,
) -> Result<Arc<Channel>, BrokerError> {
    let opening = async {
        let channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                publication.exchange.clone(),
                ExchangeKind::Topic,
                passive,
                FieldTable::default(),
            )
            .await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = short(&info.queue).unwrap_or_default();
        channel.queue_declare(queue, passive, FieldTable::default()).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Arc::new(channel))
    };
    opening
        .await
        .map_err(|error: lapin::Error| BrokerError::from_lapin(&error))
}

/// Becomes the one consumer of a queue.
pub(super) async fn consume(channel: &Channel, queue: &str, window: u16) -> Result<Consumer, lapin::Error> {
    let (qos, consumer) = futures_util::future::join(
        channel.basic_qos(window, BasicQosOptions { global: false }),
        channel.basic_consume(
            short(queue).unwrap_or_default(),
            "".into(),
            BasicConsumeOptions {
                exclusive: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        ),
    )
    .await;
    qos?;
    consumer
}

#[cfg(test)]
mod tests {
    use lapin::uri::AMQPScheme;

    use super::*;
    use crate::service::replace_port;

    fn dialled(url: &str, port: Option<u16>) -> (AMQPScheme, String, u16) {
        let mut info = QueueInfo {
            connection_url: url.to_owned(),
            queue: "q".to_owned(),
            exchange: None,
            queue_publish_kwargs: None,
        };
        if let Some(port) = port {
            replace_port(&mut info, port);
        }
        let uri = address(&info).unwrap();
        (uri.scheme, uri.authority.host, uri.authority.port)
    }

    /// 443 is the port of https, and a parser of addresses may leave out a scheme's own port: AMQP's are others.
    #[test]
    fn the_port_that_the_service_or_the_configuration_says_is_dialled_443_among_them() {
        let at = |scheme, port| (scheme, "broker.example".to_owned(), port);
        let cases = [
            ("amqps://me:word@broker.example:443/v", None, at(AMQPScheme::AMQPS, 443)),
            (
                "amqps://me:word@broker.example/v?heartbeat=30",
                None,
                at(AMQPScheme::AMQPS, 5671),
            ),
            (
                "amqps://me:word@broker.example/v",
                Some(443),
                at(AMQPScheme::AMQPS, 443),
            ),
            (
                "amqps://me:word@broker.example:5671/v",
                Some(443),
                at(AMQPScheme::AMQPS, 443),
            ),
            (
                "amqps://me:word@broker.example:443/v",
                Some(5671),
                at(AMQPScheme::AMQPS, 5671),
            ),
            (
                "amqp://me:word@broker.example/%2F",
                Some(443),
                at(AMQPScheme::AMQP, 443),
            ),
        ];
        for (url, port, expected) in cases {
            assert_eq!(dialled(url, port), expected, "{url} with amqp_port {port:?}");
        }
    }
}
