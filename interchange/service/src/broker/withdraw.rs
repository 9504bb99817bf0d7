use std::collections::HashSet;

use lapin::ErrorKind;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::AMQPValue;
use uuid::Uuid;
use waypost_protocol::HEADER_TASK;

use super::connection::{Live, at_most};
use super::{BrokerError, at};

/// Takes messages of these tasks from a queue, so that an endpoint which comes later does not run them for nothing.
/// Messages of other tasks keep their place. A queue that an endpoint consumes from is left alone.
///
/// # Errors
/// [`BrokerError::Amqp`].
pub(crate) async fn withdraw(live: &Live, queue: &str, tasks: &[Uuid]) -> Result<(), BrokerError> {
    let mut wanted: HashSet<String> = tasks.iter().map(Uuid::to_string).collect();
    let channel = live.channel().await?;
    while !wanted.is_empty() {
        let message = match channel.basic_get(queue.into(), BasicGetOptions::default()).await {
            Ok(message) => message,
            Err(error) if is_in_use(&error) => return Ok(()),
            Err(error) => return Err(at("taking back tasks")(error)),
        };
        let Some(message) = message else { break };
        let headers = message.delivery.properties.headers();
        let task = headers
            .as_ref()
            .and_then(|headers| headers.inner().get(HEADER_TASK))
            .and_then(text);
        if task.is_some_and(|task| wanted.remove(&task)) {
            message
                .delivery
                .acker
                .ack(BasicAckOptions::default())
                .await
                .map_err(at("taking back tasks"))?;
        }
    }
    // What was got and not acknowledged goes back to its place.
    at_most(channel.close(200, "done".into())).await;
    Ok(())
}

fn text(value: &AMQPValue) -> Option<String> {
    let AMQPValue::LongString(text) = value else {
        return None;
    };
    Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
}

fn is_in_use(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if matches!(
        amqp.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::RESOURCELOCKED | AMQPSoftError::NOTFOUND)
    ))
}
