//! A record on disk: its length and a checksum, four bytes each, then a byte for its kind and its fields, all numbers
//! little-endian, texts and bodies after their length.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use uuid::Uuid;
use waypost_engine::{AcceptedTask, BlockId, FunctionId, JournalRecord, TaskId, Time};

const STARTED: u8 = 1;
const SETTLED: u8 = 2;
const ACCEPTED: u8 = 3;
const RESULT: u8 = 4;
/// Length and checksum.
const HEAD: usize = 8;

/// Appends a record.
pub(super) fn write(buffer: &mut Vec<u8>, record: &JournalRecord) {
    let head = buffer.len();
    buffer.put_u64_le(0);
    match record {
        JournalRecord::Started {
            task,
            attempt,
            block,
            at,
        } => {
            buffer.put_u8(STARTED);
            buffer.put_slice(task.0.as_bytes());
            buffer.put_u64_le(at.as_micros());
            buffer.put_u32_le(*attempt);
            buffer.put_u64_le(block.epoch);
            buffer.put_u32_le(block.number);
        }
        JournalRecord::Settled { task, at } => {
            buffer.put_u8(SETTLED);
            buffer.put_slice(task.0.as_bytes());
            buffer.put_u64_le(at.as_micros());
        }
        JournalRecord::Accepted { task, at } => {
            buffer.put_u8(ACCEPTED);
            buffer.put_slice(task.task.0.as_bytes());
            buffer.put_u64_le(at.as_micros());
            buffer.put_slice(task.function.0.as_bytes());
            put_optional(buffer, task.resource_specification.as_ref().map(|text| text.as_bytes()));
            let serializers = task.result_serializers.as_deref().unwrap_or_default();
            put_length(buffer, serializers.len());
            for path in serializers {
                put_bytes(buffer, path.as_bytes());
            }
            put_optional(buffer, task.body.as_deref());
        }
        JournalRecord::Result { task, body, at } => {
            buffer.put_u8(RESULT);
            buffer.put_slice(task.0.as_bytes());
            buffer.put_u64_le(at.as_micros());
            put_bytes(buffer, body);
        }
    }
    let body = &buffer[head + HEAD..];
    let (length, sum) = (u32::try_from(body.len()).unwrap_or(u32::MAX), checksum(body));
    buffer[head..head + 4].copy_from_slice(&length.to_le_bytes());
    buffer[head + 4..head + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// The whole records at the beginning of `bytes`, and how many bytes stand behind them.
pub(super) fn read_all(mut bytes: Bytes) -> (Vec<JournalRecord>, usize) {
    let mut records = Vec::new();
    while let Some((record, length)) = read(&bytes) {
        records.push(record);
        bytes.advance(length);
    }
    (records, bytes.len())
}

fn read(bytes: &Bytes) -> Option<(JournalRecord, usize)> {
    let mut head = bytes.get(..HEAD)?;
    let length = usize::try_from(head.get_u32_le()).ok()?;
    let sum = head.get_u32_le();
    let end = HEAD.checked_add(length)?;
    let body = bytes.get(HEAD..end)?;
    if checksum(body) != sum {
        return None;
    }
    fields(bytes.slice(HEAD..end)).map(|record| (record, end))
}

fn fields(mut bytes: Bytes) -> Option<JournalRecord> {
    let kind = bytes.try_get_u8().ok()?;
    let task = TaskId(get_id(&mut bytes)?);
    let at = Time::from_micros(bytes.try_get_u64_le().ok()?);
    Some(match kind {
        STARTED => {
            let attempt = bytes.try_get_u32_le().ok()?;
            let epoch = bytes.try_get_u64_le().ok()?;
            let number = bytes.try_get_u32_le().ok()?;
            JournalRecord::Started {
                task,
                attempt,
                block: BlockId { epoch, number },
                at,
            }
        }
        SETTLED => JournalRecord::Settled { task, at },
        ACCEPTED => {
            let function = FunctionId(get_id(&mut bytes)?);
            let resource_specification = match get_optional(&mut bytes)? {
                Some(text) => Some(Arc::from(std::str::from_utf8(&text).ok()?)),
                None => None,
            };
            let mut serializers = Vec::new();
            for _ in 0..bytes.try_get_u32_le().ok()? {
                serializers.push(String::from_utf8(get_bytes(&mut bytes)?.to_vec()).ok()?);
            }
            let result_serializers = (!serializers.is_empty()).then(|| Arc::from(serializers));
            let body = get_optional(&mut bytes)?;
            let task = AcceptedTask {
                task,
                function,
                resource_specification,
                result_serializers,
                body,
            };
            JournalRecord::Accepted { task, at }
        }
        RESULT => JournalRecord::Result {
            task,
            body: get_bytes(&mut bytes)?,
            at,
        },
        _ => return None,
    })
}

fn put_length(buffer: &mut Vec<u8>, length: usize) {
    buffer.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    put_length(buffer, bytes.len());
    buffer.put_slice(bytes);
}

fn put_optional(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    buffer.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(buffer, bytes);
    }
}

fn get_id(bytes: &mut Bytes) -> Option<Uuid> {
    let id = Uuid::from_slice(bytes.get(..16)?).ok()?;
    bytes.advance(16);
    Some(id)
}

fn get_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// None if the bytes end too early.
#[expect(clippy::option_option, reason = "one for the bytes that end, one for what is absent")]
fn get_optional(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match bytes.try_get_u8().ok()? {
        0 => Some(None),
        _ => get_bytes(bytes).map(Some),
    }
}

/// FNV-1a. It tells a torn record from a whole one, and defends against nothing.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
