use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use crate::broker::{BrokerError, at};

/// The most messages that are handled in one batch.
pub(super) const BATCH_MAX: u16 = 250;
/// The bytes that are handled in one batch, unless a single message is larger.
const BATCH_BYTES: usize = 32 << 20;

/// Takes what is ready, up to [`BATCH_MAX`] and [`BATCH_BYTES`], without waiting for more.
pub(super) async fn next_batch(consumer: &mut Consumer) -> Option<lapin::Result<Vec<Delivery>>> {
    let mut bytes = 0;
    let mut batch = Vec::new();
    loop {
        let next = if batch.is_empty() {
            consumer.next().await
        } else if batch.len() >= usize::from(BATCH_MAX) || bytes >= BATCH_BYTES {
            return Some(Ok(batch));
        } else {
            match consumer.next().now_or_never() {
                None => return Some(Ok(batch)),
                Some(next) => next,
            }
        };
        match next {
            Some(Ok(delivery)) => {
                bytes += delivery.data.len();
                batch.push(delivery);
            }
            Some(Err(error)) => return Some(Err(error)),
            None => return None,
        }
    }
}

/// A consumer of one of the service's queues, that holds at most `window` deliveries.
pub(super) async fn consumer(channel: &Channel, queue: &str, window: u16) -> Result<Consumer, BrokerError> {
    channel
        .basic_qos(window, BasicQosOptions::default())
        .await
        .map_err(at("setting the prefetch window"))?;
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(at("consuming"))
}
