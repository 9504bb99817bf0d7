//! Whole messages over a byte stream.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::codec::{Decoder, Encoder, Limits};
use crate::{CodecError, LinkError, message::Message};

/// How much room there is for what comes, at first and at most: as much as came lately, for of thousands of connections most
/// say a few bytes now and then, and a message that is kept keeps the whole buffer that it was read into.
const ROOM: (usize, usize) = (4 * 1024, 64 * 1024);

/// The two halves of a connection on which `In` comes and `Out` goes.
pub fn split<In: Message, S: AsyncRead + AsyncWrite>(
    stream: S,
    limits: Limits,
) -> (LinkReader<In, ReadHalf<S>>, LinkWriter<WriteHalf<S>>) {
    let (reader, writer) = tokio::io::split(stream);
    (LinkReader::new(reader, limits), LinkWriter::new(writer))
}

/// The receiving half.
#[derive(Debug)]
pub struct LinkReader<In, R> {
    stream: R,
    buffer: BytesMut,
    room: usize,
    decoder: Decoder<In>,
    heard: Instant,
}

impl<In: Message, R: AsyncRead + Unpin> LinkReader<In, R> {
    /// Reads messages from `stream`.
    pub fn new(stream: R, limits: Limits) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            room: ROOM.0,
            decoder: Decoder::new(limits),
            heard: Instant::now(),
        }
    }

    /// When bytes came last, be they a whole message or not: on a slow connection a large one is on its way for longer
    /// than [`crate::DEAD_AFTER`], and a heartbeat waits behind what the system has taken of it.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Changes what is accepted from here on: a stranger that has shown its token may send more.
    pub fn set_limits(&mut self, limits: Limits) {
        self.decoder.set_limits(limits);
    }

    /// The next message; `None` when the peer has closed the connection. Cancel-safe.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is of no use afterwards.
    pub async fn next(&mut self) -> Result<Option<In>, LinkError> {
        loop {
            if let Some(message) = self.next_received()? {
                return Ok(Some(message));
            }
            let room = self.make_room();
            let read = self.stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                let clean = self.buffer.is_empty() && self.decoder.is_between_messages();
                return if clean { Ok(None) } else { Err(LinkError::Truncated) };
            }
            self.heard = Instant::now();
            if read == room {
                self.room = (self.room * 2).min(ROOM.1);
            } else if read < self.room / 4 {
                self.room = (self.room / 2).max(ROOM.0);
            }
        }
    }

    /// Room for what comes next, and how much it is. A frame that has begun has made its own.
    fn make_room(&mut self) -> usize {
        let room = self.buffer.spare_capacity_mut().len();
        if self.buffer.is_empty() && (room < self.room / 4 || room > self.room * 4) {
            // What was large for one message is not kept for those after it.
            self.buffer = BytesMut::with_capacity(self.room);
        } else if room < self.room / 4 {
            self.buffer.reserve(self.room);
        }
        self.buffer.spare_capacity_mut().len()
    }

    /// The next message if it has been read already: with it, all that came in one go is handled in one go.
    ///
    /// # Errors
    /// [`CodecError`]; the connection is of no use afterwards.
    pub fn next_received(&mut self) -> Result<Option<In>, CodecError> {
        self.decoder.decode(&mut self.buffer)
    }
}

/// The sending half. Messages are queued, then written together: push all that is ready, then write.
#[derive(Debug)]
pub struct LinkWriter<W> {
    stream: W,
    encoder: Encoder,
    flushed: bool,
}

impl<W: AsyncWrite + Unpin> LinkWriter<W> {
    /// Writes messages to `stream`.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            encoder: Encoder::default(),
            flushed: true,
        }
    }

    /// Queues a message; nothing is written yet.
    ///
    /// # Errors
    /// [`CodecError`] if the message is too large. The connection stays usable.
    pub fn push<Out: Message>(&mut self, message: &Out) -> Result<(), CodecError> {
        self.encoder.push(message)
    }

    /// True if there is nothing to write.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flushed && self.encoder.is_empty()
    }

    /// Bytes that are queued and not written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.encoder.queued_bytes()
    }

    /// Writes some of what is queued, as much as the connection takes at once. Cancel-safe, so that messages may be
    /// pushed in between: they overtake what is left of large payloads.
    ///
    /// # Errors
    /// [`LinkError::Io`]; the connection is of no use afterwards.
    pub async fn write_some(&mut self) -> Result<(), LinkError> {
        let ready = self.encoder.ready();
        if ready.has_remaining() {
            self.flushed = false;
            if self.stream.write_buf(ready).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
        }
        if self.encoder.is_empty() && !self.flushed {
            self.stream.flush().await?;
            self.flushed = true;
        }
        Ok(())
    }

    /// Writes all that is queued. Cancel-safe.
    ///
    /// # Errors
    /// [`LinkError::Io`]; the connection is of no use afterwards.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.is_idle() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Writes all that is queued and tells the peer that nothing more comes.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub async fn close(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, ToAgent};

    #[tokio::test]
    async fn a_connection_has_room_for_what_comes_and_keeps_little_once_little_comes() {
        let (near, far) = tokio::io::duplex(4 << 20);
        let (mut reader, _) = split::<ToAgent, _>(near, Limits::TRUSTED);
        let (_, mut writer) = split::<ToAgent, _>(far, Limits::TRUSTED);
        let mut hear = async |count: usize| {
            for _ in 0..count {
                writer.push(&ToAgent::Heartbeat).expect("it is small");
            }
            writer.flush().await.expect("somebody listens");
            for _ in 0..count {
                assert!(matches!(reader.next().await, Ok(Some(ToAgent::Heartbeat))));
            }
            (reader.room, reader.buffer.capacity())
        };
        for _ in 0..1000 {
            let (room, capacity) = hear(1).await;
            assert!(room == ROOM.0 && capacity <= ROOM.0, "{room} {capacity}");
        }
        // The last read may have found little.
        assert!(hear(50_000).await.0 >= ROOM.1 / 2);
        for _ in 0..20 {
            hear(1).await;
        }
        let (room, capacity) = hear(1).await;
        assert!(room == ROOM.0 && capacity <= 4 * ROOM.0, "{room} {capacity}");
    }
}
