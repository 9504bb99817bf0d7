use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use serde_json::{Map, Value};
use waypost_protocol::QueueInfo;

/// The persistent delivery mode.
const PERSISTENT: u8 = 2;

/// What every publish of one kind carries, as the service asked.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    pub(super) properties: BasicProperties,
}

impl Publication {
    /// Reads `queue_publish_kwargs`. What the service leaves open is as upstream's endpoints do it: persistent and
    /// mandatory. The error is a sentence.
    pub(super) fn read(info: &QueueInfo) -> Result<Self, String> {
        let arguments = info
            .queue_publish_kwargs
            .as_ref()
            .ok_or("it has no queue_publish_kwargs")?;
        let mut properties = basic_properties(arguments.properties.as_ref())?;
        if properties.delivery_mode().is_none() {
            properties = properties.with_delivery_mode(PERSISTENT);
        }
        Ok(Self {
            exchange: short(&arguments.exchange)?,
            routing_key: short(&arguments.routing_key)?,
            mandatory: arguments.mandatory.unwrap_or(true),
            properties,
        })
    }
}

/// A text as AMQP's short string, which has at most 255 bytes.
pub(super) fn short(text: &str) -> Result<ShortString, String> {
    if text.len() > usize::from(u8::MAX) {
        return Err(format!("{text:?} is longer than the 255 bytes that AMQP allows"));
    }
    Ok(ShortString::from(text))
}

fn basic_properties(given: Option<&Map<String, Value>>) -> Result<BasicProperties, String> {
    let mut properties = BasicProperties::default();
    for (name, value) in given.into_iter().flatten() {
        if value.is_null() {
            continue;
        }
        let bad = || format!("the property {name} has a value of the wrong type");
        let text = || value.as_str().ok_or_else(bad).and_then(short);
        let small = || {
            value
                .as_u64()
                .and_then(|number| u8::try_from(number).ok())
                .ok_or_else(bad)
        };
        properties = match name.as_str() {
            "content_type" => properties.with_content_type(text()?),
            "content_encoding" => properties.with_content_encoding(text()?),
            "headers" => properties.with_headers(table(value.as_object().ok_or_else(bad)?)?),
            "delivery_mode" => properties.with_delivery_mode(small()?),
            "priority" => properties.with_priority(small()?),
            "correlation_id" => properties.with_correlation_id(text()?),
            "reply_to" => properties.with_reply_to(text()?),
            "expiration" => properties.with_expiration(text()?),
            "message_id" => properties.with_message_id(text()?),
            "timestamp" => properties.with_timestamp(value.as_u64().ok_or_else(bad)?),
            "type" => properties.with_type(text()?),
            "user_id" => properties.with_user_id(text()?),
            "app_id" => properties.with_app_id(text()?),
            "cluster_id" => properties.with_cluster_id(text()?),
            _ => return Err(format!("the property {name} is not one of AMQP's")),
        };
    }
    Ok(properties)
}

fn table(map: &Map<String, Value>) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    for (name, value) in map {
        table.insert(short(name)?, field(value)?);
    }
    Ok(table)
}

fn field(value: &Value) -> Result<AMQPValue, String> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => AMQPValue::LongLongInt(integer),
            (None, Some(float)) => AMQPValue::Double(float),
            (None, None) => return Err(format!("the number {number} fits no AMQP type")),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => {
            let mut array = FieldArray::default();
            for item in items {
                array.push(field(item)?);
            }
            AMQPValue::FieldArray(array)
        }
        Value::Object(map) => AMQPValue::FieldTable(table(map)?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(arguments: Value) -> QueueInfo {
        serde_json::from_value(json!({
            "connection_url": "amqp://localhost", "queue": "results", "queue_publish_kwargs": arguments
        }))
        .unwrap()
    }

    #[test]
    fn what_the_service_leaves_open_is_persistent_and_mandatory() {
        let publication = Publication::read(&info(json!({"exchange": "results", "routing_key": "a.results"}))).unwrap();
        assert!(publication.mandatory);
        assert_eq!(publication.properties, BasicProperties::default().with_delivery_mode(2));
    }

    #[test]
    fn properties_are_taken_verbatim() {
        let publication = Publication::read(&info(json!({
            "exchange": "results", "routing_key": "a.results", "mandatory": false,
            "properties": {"delivery_mode": 1, "app_id": "x", "headers": {"n": 3, "s": "t", "l": [true, null]}}
        })))
        .unwrap();
        assert!(!publication.mandatory);
        assert_eq!(*publication.properties.delivery_mode(), Some(1));
        let headers = publication.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("n"), Some(&AMQPValue::LongLongInt(3)));
        assert_eq!(headers.inner().get("s"), Some(&AMQPValue::LongString("t".into())));
    }

    #[test]
    fn a_property_that_is_none_of_amqps_is_named() {
        let arguments = json!({"exchange": "r", "routing_key": "k", "properties": {"colour": "red"}});
        assert_eq!(
            Publication::read(&info(arguments)).unwrap_err(),
            "the property colour is not one of AMQP's"
        );
    }
}
