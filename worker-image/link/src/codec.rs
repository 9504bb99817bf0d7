//! Messages to frames and back, without I/O.
//!
//! A frame is `u32 length, u32 header length` (both big-endian; the first counts header and payload), the header in
//! msgpack, then the payload as it is. The header is `[stream, total, message]`:
//! * a whole message: `[0, 0, message]`;
//! * the first chunk of a payload over [`CHUNK`]: `[stream, total, message]`;
//! * each further chunk: `[stream, 0, nil]`.
//!
//! Chunks of different messages may be mixed, and whole messages may stand between them: so **a small message may
//! overtake a big one that was sent before it**.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::{CodecError, message::Message};

/// The most payload that one frame carries, in bytes.
pub const CHUNK: usize = 256 * 1024;
/// The most that a header may take, in bytes.
pub const HEADER_MAX: usize = 1024 * 1024;
/// Payloads up to this size are copied next to their header, so that they neither cost a segment of their own when
/// written nor keep a whole read buffer alive.
const COPIED_MAX: usize = 16 * 1024;
/// How many payloads a sender has under way in chunks at once; more would only make each of them later.
const STREAMS_SENT: usize = 4;
const PREFIX: usize = 8;

/// What a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload, in bytes.
    pub payload: usize,
    /// How many payloads may be under way in chunks at once.
    pub streams: usize,
}

impl Limits {
    /// For a peer that has shown its token: a result of 10 MiB fits even if JSON has to escape each of its characters.
    pub const TRUSTED: Self = Self {
        payload: 64 * 1024 * 1024,
        streams: 16,
    };
    /// For a peer that has yet to say hello.
    pub const STRANGER: Self = Self {
        payload: 4 * 1024 * 1024,
        streams: 1,
    };
}

/// Turns messages into the bytes to send.
#[derive(Debug, Default)]
pub struct Encoder {
    ready: Segments,
    /// Payloads that wait to be cut into chunks; the first [`STREAMS_SENT`] take turns.
    big: VecDeque<Outgoing>,
    big_bytes: usize,
    last_stream: u32,
    /// Where in all that was ever taken the last chunk ends: until then no further chunk joins `ready`.
    chunk_end: u64,
}

#[derive(Debug)]
struct Outgoing {
    stream: u32,
    /// The frame's header, until the first chunk has taken it.
    header: Option<BytesMut>,
    payload: Bytes,
}

impl Encoder {
    /// Queues a message.
    ///
    /// # Errors
    /// [`CodecError`] if the message is larger than any receiver accepts; nothing is queued then.
    pub fn push<M: Message>(&mut self, message: &M) -> Result<(), CodecError> {
        let payload = message.payload()?;
        check("a payload", payload.len(), Limits::TRUSTED.payload)?;
        if payload.len() <= CHUNK {
            let start = self.ready.tail.len();
            if let Err(error) = write_header(&mut self.ready.tail, (0, 0, Some(message)), payload.len()) {
                self.ready.tail.truncate(start);
                return Err(error);
            }
            self.ready.push(payload);
            return Ok(());
        }
        let stream = self.last_stream.checked_add(1).unwrap_or(1);
        let mut header = BytesMut::new();
        write_header(&mut header, (stream, payload.len() as u64, Some(message)), CHUNK)?;
        self.last_stream = stream;
        self.big_bytes += payload.len();
        self.big.push_back(Outgoing {
            stream,
            header: Some(header),
            payload,
        });
        Ok(())
    }

    /// What is to be written next, oldest first; empty when nothing is left. Take from its front as much as the
    /// connection accepts, then call this again: a further chunk joins when the one before is gone.
    pub fn ready(&mut self) -> &mut Segments {
        if self.chunk_end <= self.ready.taken && !self.big.is_empty() {
            self.next_chunk();
        }
        &mut self.ready
    }

    /// True if nothing is left to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.big.is_empty() && !self.ready.has_remaining()
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.big_bytes + self.ready.remaining()
    }

    fn next_chunk(&mut self) {
        let Some(mut outgoing) = self.big.pop_front() else {
            return;
        };
        let chunk = outgoing.payload.split_to(CHUNK.min(outgoing.payload.len()));
        self.big_bytes -= chunk.len();
        match outgoing.header.take() {
            Some(header) => self.ready.tail.extend_from_slice(&header),
            None => write_header::<()>(&mut self.ready.tail, (outgoing.stream, 0, None), chunk.len())
                .expect("an integer pair is always written, and a Vec takes every write"),
        }
        self.ready.push(chunk);
        self.chunk_end = self.ready.taken + self.ready.remaining() as u64;
        if !outgoing.payload.is_empty() {
            let turn = self.big.len().min(STREAMS_SENT - 1);
            self.big.insert(turn, outgoing);
        }
    }
}

fn write_header<M: Serialize>(
    buffer: &mut BytesMut,
    header: (u32, u64, Option<&M>),
    payload: usize,
) -> Result<(), CodecError> {
    let start = buffer.len();
    buffer.put_bytes(0, PREFIX);
    header.serialize(&mut rmp_serde::Serializer::new((&mut *buffer).writer()).with_struct_map())?;
    let length = buffer.len() - start - PREFIX;
    check("a frame's header", length, HEADER_MAX)?;
    // Both fit: HEADER_MAX and CHUNK are far below 4 GiB.
    let prefix = ((length + payload) as u64) << 32 | length as u64;
    buffer[start..start + PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

fn check(what: &'static str, length: usize, limit: usize) -> Result<(), CodecError> {
    if length <= limit {
        return Ok(());
    }
    Err(CodecError::TooLarge {
        what,
        length: length as u64,
        limit: limit as u64,
    })
}

/// Bytes to write, as the pieces that they were given in: a large payload is never copied.
#[derive(Debug, Default)]
pub struct Segments {
    done: VecDeque<Bytes>,
    done_bytes: usize,
    tail: BytesMut,
    taken: u64,
}

impl Segments {
    fn push(&mut self, payload: Bytes) {
        if payload.len() <= COPIED_MAX {
            self.tail.extend_from_slice(&payload);
            return;
        }
        self.close_tail();
        self.done_bytes += payload.len();
        self.done.push_back(payload);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.done_bytes += tail.len();
            self.done.push_back(tail);
        }
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.done_bytes + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.done.front().map_or(&self.tail, |segment| segment)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let segments = self.done.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]);
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(segments.filter(|segment| !segment.is_empty())) {
            *slice = IoSlice::new(segment);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "more is taken than there is");
        self.taken += count as u64;
        while let Some(segment) = self.done.front_mut() {
            if count < segment.len() {
                segment.advance(count);
                self.done_bytes -= count;
                return;
            }
            count -= segment.len();
            self.done_bytes -= segment.len();
            self.done.pop_front();
        }
        self.tail.advance(count);
    }
}

/// Turns received bytes into messages. After an error it must not be used again.
#[derive(Debug)]
pub struct Decoder<M> {
    limits: Limits,
    partial: BTreeMap<u32, Incoming<M>>,
}

#[derive(Debug)]
struct Incoming<M> {
    message: M,
    payload: BytesMut,
    total: usize,
}

impl<M: Message> Decoder<M> {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            partial: BTreeMap::new(),
        }
    }

    /// Changes what is accepted from here on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// True if no message is half received.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.partial.is_empty()
    }

    /// Takes the next message out of the front of `buffer`; `None` if more bytes are needed. Room for no more than
    /// one frame is made in advance, whatever lengths the peer claims.
    ///
    /// # Errors
    /// [`CodecError`] says what is wrong with the bytes; nothing in them can make this panic.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<M>, CodecError> {
        while let Some(prefix) = buffer.first_chunk::<PREFIX>() {
            let prefix = u64::from_be_bytes(*prefix);
            let length = usize::try_from(prefix >> 32).unwrap_or(usize::MAX);
            let header_length = usize::try_from(prefix & 0xffff_ffff).unwrap_or(usize::MAX);
            check("a frame's header", header_length, HEADER_MAX)?;
            let Some(payload_length) = length.checked_sub(header_length) else {
                return Err(CodecError::Rule("a frame's header is longer than the frame"));
            };
            check("a frame's payload", payload_length, CHUNK)?;
            let missing = (PREFIX + length).saturating_sub(buffer.len());
            if missing > 0 {
                buffer.reserve(missing);
                return Ok(None);
            }
            if let Some(message) = self.frame(header_length, payload_length, buffer)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn frame(&mut self, header: usize, payload: usize, buffer: &mut BytesMut) -> Result<Option<M>, CodecError> {
        buffer.advance(PREFIX);
        let (stream, total, message) = read_header::<M>(&buffer[..header])?;
        buffer.advance(header);
        match message {
            Some(mut message) if stream == 0 => {
                let payload = if payload <= COPIED_MAX {
                    let copy = Bytes::copy_from_slice(&buffer[..payload]);
                    buffer.advance(payload);
                    copy
                } else {
                    buffer.split_to(payload).freeze()
                };
                message.accept(payload)?;
                Ok(Some(message))
            }
            Some(message) => {
                let total = usize::try_from(total).unwrap_or(usize::MAX);
                check("a payload", total, self.limits.payload)?;
                if self.partial.len() >= self.limits.streams {
                    return Err(CodecError::Rule("too many payloads are under way at once"));
                }
                let incoming = Incoming {
                    message,
                    payload: BytesMut::new(),
                    total,
                };
                if self.partial.insert(stream, incoming).is_some() {
                    return Err(CodecError::Rule("a stream was opened twice"));
                }
                self.chunk(stream, payload, buffer)
            }
            None => self.chunk(stream, payload, buffer),
        }
    }

    fn chunk(&mut self, stream: u32, length: usize, buffer: &mut BytesMut) -> Result<Option<M>, CodecError> {
        let Some(incoming) = self.partial.get_mut(&stream) else {
            return Err(CodecError::Rule("a chunk belongs to no stream"));
        };
        let left = incoming.total - incoming.payload.len();
        if length == 0 || length > left {
            return Err(CodecError::Rule("the chunks of a payload do not add up to its length"));
        }
        // Grows with what has come, so a claimed length alone takes no memory.
        if incoming.payload.capacity() - incoming.payload.len() < length {
            incoming.payload.reserve(left.min(length + incoming.payload.len()));
        }
        incoming.payload.extend_from_slice(&buffer[..length]);
        buffer.advance(length);
        if length < left {
            return Ok(None);
        }
        let Some(Incoming {
            mut message, payload, ..
        }) = self.partial.remove(&stream)
        else {
            return Ok(None);
        };
        message.accept(payload.freeze())?;
        Ok(Some(message))
    }
}

fn read_header<M: Message>(bytes: &[u8]) -> Result<(u32, u64, Option<M>), CodecError> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    // Deep nesting is nothing that a message has; the limit keeps hostile input off the stack.
    deserializer.set_max_depth(32);
    let header = serde::Deserialize::deserialize(&mut deserializer)?;
    if rest.is_empty() {
        Ok(header)
    } else {
        Err(CodecError::Rule("a header is followed by something that is no payload"))
    }
}
