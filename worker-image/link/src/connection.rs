//! Whole messages over a byte stream.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::codec::{Decoder, Encoder, Limits};
use crate::{CodecError, LinkError, message::Message};

/// How much is read at once if there is as much.
const READ: usize = 64 * 1024;

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
    decoder: Decoder<In>,
}

impl<In: Message, R: AsyncRead + Unpin> LinkReader<In, R> {
    /// Reads messages from `stream`.
    pub fn new(stream: R, limits: Limits) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(READ),
            decoder: Decoder::new(limits),
        }
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
            self.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                let clean = self.buffer.is_empty() && self.decoder.is_between_messages();
                return if clean { Ok(None) } else { Err(LinkError::Truncated) };
            }
        }
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
