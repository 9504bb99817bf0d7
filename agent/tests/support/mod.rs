//! What the integration tests share: a real broker, a topology of their own on it, and a proxy to break connections.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod refusal;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, PublishArguments, QueueInfo};

/// No step of a test takes longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// The URL of the broker for tests.
pub(crate) fn amqp_url() -> String {
    std::env::var("WAYPOST_TEST_AMQP").expect(
        "WAYPOST_TEST_AMQP is not set: it must be the amqp:// URL of a RabbitMQ virtual host that the tests may use as \
         its administrator; ./test starts one and sets it",
    )
}

/// A broker's exchanges and one endpoint's queues, as the service makes them.
pub(crate) struct Topology {
    pub(crate) endpoint: Uuid,
    pub(crate) channel: Channel,
    pub(crate) connection: Connection,
    pub(crate) url: String,
    tasks: QueueType,
}

/// How a broker keeps a queue.
#[derive(Clone, Copy)]
pub(crate) enum QueueType {
    /// It has one consumer, if that asks to be the only one.
    Classic,
    /// It takes as many consumers as come.
    Quorum,
}

impl Topology {
    pub(crate) async fn create() -> Self {
        Self::create_with(QueueType::Classic).await
    }

    /// With a task queue of this type.
    pub(crate) async fn create_with(queue_type: QueueType) -> Self {
        let url = amqp_url();
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .expect("the broker for tests answers");
        let channel = connection.create_channel().await.unwrap();
        let endpoint = Uuid::new_v4();
        let topology = Self {
            endpoint,
            channel,
            connection,
            url,
            tasks: queue_type,
        };
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        for exchange in ["tasks", "results", "heartbeats"] {
            topology
                .channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
                .await
                .unwrap();
        }
        topology.declare_tasks().await;
        for kind in ["results", "heartbeats"] {
            topology.declare(&topology.queue(kind), QueueType::Classic).await;
            topology.bind(kind).await;
        }
        topology
    }

    pub(crate) async fn declare_tasks(&self) {
        self.declare(&self.queue("tasks"), self.tasks).await;
    }

    async fn declare(&self, queue: &str, queue_type: QueueType) {
        let mut arguments = FieldTable::default();
        if matches!(queue_type, QueueType::Quorum) {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), durable, arguments)
            .await
            .unwrap();
    }

    /// A queue of this endpoint. Results and heartbeats are read by their own queues here, so that tests that run at
    /// the same time do not take each other's.
    pub(crate) fn queue(&self, kind: &str) -> String {
        format!("{}.{kind}", self.endpoint)
    }

    pub(crate) async fn bind(&self, kind: &str) {
        self.channel
            .queue_bind(
                self.queue(kind).into(),
                kind.into(),
                self.queue(kind).into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    pub(crate) async fn unbind(&self, kind: &str) {
        self.channel
            .queue_unbind(
                self.queue(kind).into(),
                kind.into(),
                self.queue(kind).into(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, kind: &str) {
        self.channel
            .queue_delete(self.queue(kind).into(), QueueDeleteOptions::default())
            .await
            .unwrap();
    }

    /// How many messages wait in a queue.
    pub(crate) async fn ready(&self, kind: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare(self.queue(kind).into(), passive, FieldTable::default())
            .await
            .unwrap();
        queue.message_count()
    }

    /// Waits until so many messages wait in a queue.
    pub(crate) async fn wait_ready(&self, kind: &str, count: u32) {
        let mut seen = 0;
        let waiting = async {
            loop {
                seen = self.ready(kind).await;
                if seen == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            reached.is_ok(),
            "{seen} messages wait in {}, and {count} should",
            self.queue(kind)
        );
    }

    /// Waits until at least so many messages wait in a queue.
    pub(crate) async fn wait_ready_above(&self, kind: &str, count: u32) {
        soon("enough messages", async {
            while self.ready(kind).await < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Takes a message from a queue.
    pub(crate) async fn take(&self, kind: &str) -> Option<lapin::message::BasicGetMessage> {
        let options = lapin::options::BasicGetOptions { no_ack: true };
        self.channel.basic_get(self.queue(kind).into(), options).await.unwrap()
    }

    /// Sends a task, as the service does.
    pub(crate) async fn send_task(&self, task: Uuid, body: &[u8]) {
        self.send(
            BasicProperties::default()
                .with_delivery_mode(2)
                .with_headers(headers(task)),
            body,
        )
        .await;
    }

    /// Sends a task with the headers that are seldom there.
    pub(crate) async fn send_task_with_wishes(&self, task: Uuid, body: &[u8]) {
        let mut headers = headers(task);
        headers.insert(
            "resource_specification".into(),
            AMQPValue::LongString("{\"a\": 1}".into()),
        );
        let mut serializers = FieldArray::default();
        serializers.push(AMQPValue::LongString("x.Y".into()));
        headers.insert("result_serializers".into(), AMQPValue::FieldArray(serializers));
        self.send(
            BasicProperties::default().with_delivery_mode(2).with_headers(headers),
            body,
        )
        .await;
    }

    /// Sends a task whose resource specification is as large as this.
    pub(crate) async fn send_task_with_large_wishes(&self, task: Uuid, bytes: usize) {
        let mut headers = headers(task);
        let specification = "x".repeat(bytes);
        headers.insert(
            "resource_specification".into(),
            AMQPValue::LongString(specification.into()),
        );
        self.send(BasicProperties::default().with_headers(headers), b"\x01task")
            .await;
    }

    pub(crate) async fn send(&self, properties: BasicProperties, body: &[u8]) {
        // By the default exchange: the binding of the task queue is the service's matter.
        let options = BasicPublishOptions::default();
        self.channel
            .basic_publish("".into(), self.queue("tasks").into(), options, body, properties)
            .await
            .unwrap();
    }

    pub(crate) fn credentials(&self) -> AmqpCredentials {
        self.credentials_by(&self.url)
    }

    /// Credentials that lead to the broker by this URL.
    pub(crate) fn credentials_by(&self, url: &str) -> AmqpCredentials {
        let info = |kind: &str| QueueInfo {
            connection_url: url.to_owned(),
            queue: self.queue(kind),
            exchange: Some(kind.to_owned()),
            queue_publish_kwargs: Some(PublishArguments {
                exchange: kind.to_owned(),
                routing_key: self.queue(kind),
                mandatory: None,
                properties: None,
            }),
        };
        AmqpCredentials {
            endpoint_id: self.endpoint,
            task_queue_info: QueueInfo {
                exchange: None,
                queue_publish_kwargs: None,
                ..info("tasks")
            },
            result_queue_info: info("results"),
            heartbeat_queue_info: info("heartbeats"),
        }
    }

    /// Deletes the queues.
    pub(crate) async fn remove(self) {
        for kind in ["tasks", "results", "heartbeats"] {
            self.delete(kind).await;
        }
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

/// A way to the broker that can be cut.
pub(crate) struct Proxy {
    pub(crate) url: String,
    cut: Arc<watch::Sender<u64>>,
}

impl Proxy {
    pub(crate) async fn to(url: &str) -> Self {
        let mut there = url::Url::parse(url).unwrap();
        let target = format!("{}:{}", there.host_str().unwrap(), there.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        there.set_host(Some("127.0.0.1")).unwrap();
        there.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let cut = Arc::new(watch::channel(0).0);
        let cuts = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let (mut cuts, target) = (cuts.subscribe(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut outer) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = cuts.changed() => {}
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                    }
                });
            }
        });
        Self {
            url: there.to_string(),
            cut,
        }
    }

    /// Cuts every connection that there is. New ones work.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

fn headers(task: Uuid) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert("task_uuid".into(), AMQPValue::LongString(task.to_string().into()));
    headers.insert(
        "function_uuid".into(),
        AMQPValue::LongString(Uuid::nil().to_string().into()),
    );
    headers
}
