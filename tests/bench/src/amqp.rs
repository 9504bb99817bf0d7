//! What both programs need of AMQP.

use anyhow::Context;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use uuid::Uuid;
use waypost_protocol::{HEADER_FUNCTION, HEADER_TASK};

/// Persistent, as the interchange and the endpoints publish.
const DELIVERY_MODE_PERSISTENT: u8 = 2;

/// Where tasks and results pass, as both programs are told.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// AMQP URL, with rights on the task queue and on the results exchange.
    #[arg(long, env = "WAYPOST_BENCH_AMQP", hide_env_values = true)]
    pub(crate) amqp: String,
    /// The endpoint's task queue.
    #[arg(long)]
    pub(crate) task_queue: String,
    /// The exchange to which endpoints publish results.
    #[arg(long, default_value = "results")]
    pub(crate) result_exchange: String,
    /// The endpoint's routing key on it.
    #[arg(long)]
    pub(crate) result_key: String,
}

/// Connects, or says to what it could not (without the password).
pub(crate) async fn connect(url: &str, name: &str) -> anyhow::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connect(url, properties).await.with_context(|| {
        let address = url.rsplit_once('@').map_or(url, |(_, address)| address);
        format!("no AMQP connection to {address}")
    })
}

/// The properties of a task: persistent, and the two headers that endpoints require.
pub(crate) fn task_properties(task: Uuid, function: Uuid) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(HEADER_TASK.into(), AMQPValue::LongString(task.to_string().into()));
    headers.insert(
        HEADER_FUNCTION.into(),
        AMQPValue::LongString(function.to_string().into()),
    );
    result_properties().with_headers(headers)
}

/// The properties of a result: persistent, nothing else.
pub(crate) fn result_properties() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(DELIVERY_MODE_PERSISTENT)
}
