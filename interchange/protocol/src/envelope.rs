use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{StatusReport, Task, TaskResult};

/// The first byte of every message: version 1 of the envelope.
const VERSION: u8 = 1;

/// A message in its envelope: one byte `0x01`, then `{"message_type": ..., "data": {...}}` in UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Work for an endpoint.
    Task(Task),
    /// What became of it.
    Result(TaskResult),
    /// An endpoint's heartbeat.
    StatusReport(StatusReport),
}

/// Why some bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is not even a version byte.
    #[error("the message is empty")]
    Empty,
    /// The first byte is not the known version.
    #[error("the message starts with byte {0:#04x}, and only version 0x01 is known")]
    Version(u8),
    /// What follows the version is not the JSON that the type needs.
    #[error("the message is not the JSON expected of it: {0}")]
    Json(#[from] serde_json::Error),
    /// A `message_type` that has no place here.
    #[error("message_type {0:?} is not task, result or ep_status_report")]
    Type(String),
}

#[derive(Deserialize)]
struct Incoming<'a> {
    message_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    message_type: &'static str,
    data: &'a T,
}

/// Reads a message from its wire form. Unknown fields are ignored, as `globus-compute-common` does.
///
/// # Errors
/// [`DecodeError`] says what is wrong with the bytes; nothing in them can make this panic.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let (version, json) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *version != VERSION {
        return Err(DecodeError::Version(*version));
    }
    let Incoming { message_type, data } = serde_json::from_slice(json)?;
    match message_type.as_str() {
        "task" => Ok(Message::Task(serde_json::from_str(data.get())?)),
        "result" => Ok(Message::Result(serde_json::from_str(data.get())?)),
        "ep_status_report" => Ok(Message::StatusReport(serde_json::from_str(data.get())?)),
        _ => Err(DecodeError::Type(message_type)),
    }
}

/// Writes a message in its wire form.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Task(data) => wire("task", data),
        Message::Result(data) => wire("result", data),
        Message::StatusReport(data) => wire("ep_status_report", data),
    }
}

fn wire<T: Serialize>(message_type: &'static str, data: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, &Outgoing { message_type, data })
        .expect("these types have string keys only, and a Vec takes every write");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    // As globus-compute-endpoint 4.19 put it on the wire.
    const RESULT: &str = concat!(
        "\x01{\"message_type\":\"result\",\"data\":{\"task_id\":\"5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43\",\"data\":\"00\\ngASV\",",
        "\"details\":{\"os\":\"Linux\",\"dill_version\":\"0.3.9\"},\"error_details\":null,\"task_statuses\":[",
        "{\"timestamp\":1795217418661970051,\"state\":\"execution-start\",\"actor\":\"worker\"}]}}"
    );

    #[test]
    fn a_result_survives_the_way_in_and_out() {
        let message = decode(RESULT.as_bytes()).unwrap();
        assert_eq!(decode(&encode(&message)).unwrap(), message);
        let Message::Result(result) = message else {
            panic!("a result was sent")
        };
        assert_eq!(result.data, "00\ngASV");
        assert_eq!(result.task_statuses[0].timestamp, 1_795_217_418_661_970_051);
    }

    #[test]
    fn bad_bytes_are_named() {
        assert!(matches!(decode(b""), Err(DecodeError::Empty)));
        assert!(matches!(decode(b"\x02{}"), Err(DecodeError::Version(2))));
        assert!(matches!(decode(b"\x01{}"), Err(DecodeError::Json(_))));
        assert!(matches!(
            decode(b"\x01{\"message_type\":\"x\",\"data\":1}"),
            Err(DecodeError::Type(_))
        ));
    }

    #[test]
    fn a_heartbeat_is_read_under_both_of_its_names() {
        for key in ["global_state", "ep_status_report"] {
            let wire = format!(
                "\x01{{\"message_type\":\"ep_status_report\",\"data\":{{\"endpoint_id\":\"5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43\",\"{key}\":{{\"heartbeat_period\":30}},\"task_statuses\":{{}}}}}}"
            );
            let Message::StatusReport(report) = decode(wire.as_bytes()).unwrap() else {
                panic!("a report was sent")
            };
            assert_eq!(report.heartbeat_period(), Some(30.0));
        }
    }
}
