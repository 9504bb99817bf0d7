use std::sync::Arc;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;
use waypost_engine::{ChannelEpoch, Delivery, DeliveryTag, FunctionId, TaskId};
use waypost_protocol::{HEADER_FUNCTION, HEADER_RESOURCES, HEADER_SERIALIZERS, HEADER_TASK};

/// A body whose buffer is larger than itself by more than this is moved into one of its own size: what is held is
/// bounded by bytes, and a buffer that grew by doubling may be twice what is counted.
const SLACK: usize = 4096;

/// Reads a delivery's headers. The error is a sentence about what is missing.
pub(super) fn read(channel: u64, delivery: lapin::message::Delivery) -> Result<Delivery, String> {
    let empty = FieldTable::default();
    let headers = delivery.properties.headers().as_ref().unwrap_or(&empty);
    let task = id(headers, HEADER_TASK)?;
    let function = id(headers, HEADER_FUNCTION)?;
    let resource_specification = text(headers, HEADER_RESOURCES).map(Arc::from);
    let result_serializers = match headers.inner().get(HEADER_SERIALIZERS) {
        Some(AMQPValue::FieldArray(paths)) => {
            let paths: Arc<[String]> = paths.as_slice().iter().filter_map(as_text).map(str::to_owned).collect();
            Some(paths).filter(|paths| !paths.is_empty())
        }
        Some(_) | None => None,
    };
    let delivery_count = headers.inner().get("x-delivery-count").and_then(as_count);
    let mut data = delivery.data;
    if data.capacity() - data.len() > SLACK {
        data.shrink_to_fit();
    }
    Ok(Delivery {
        tag: DeliveryTag {
            channel: ChannelEpoch(channel),
            tag: delivery.delivery_tag,
        },
        task: TaskId(task),
        function: FunctionId(function),
        redelivered: delivery.redelivered,
        delivery_count,
        resource_specification,
        result_serializers,
        body: Bytes::from(data),
    })
}

fn id(headers: &FieldTable, name: &str) -> Result<Uuid, String> {
    let value = text(headers, name).ok_or_else(|| format!("the header {name} is missing"))?;
    value.parse().map_err(|_| format!("the header {name} is not a UUID"))
}

fn text<'a>(headers: &'a FieldTable, name: &str) -> Option<&'a str> {
    headers.inner().get(name).and_then(as_text)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other AMQP type is a text")]
fn as_text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other AMQP type is a count")]
fn as_count(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some(u64::from(*count)),
        AMQPValue::ShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortUInt(count) => Some(u64::from(*count)),
        AMQPValue::ShortShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortShortUInt(count) => Some(u64::from(*count)),
        _ => None,
    }
}
