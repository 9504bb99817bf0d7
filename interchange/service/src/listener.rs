//! Connections of clients, on which nothing waits for a timer of TCP.
//!
//! A client that sends the head and the body of a request apart, on a socket without `TCP_NODELAY`, keeps the body back
//! until the head is acknowledged; and Linux puts off an acknowledgement for up to 40 ms. The SDK is such a client
//! wherever it comes through an HTTP proxy, for there its library (urllib3) leaves that option out.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Takes connections that acknowledge what they read at once, and send what they are given at once.
pub(crate) struct PromptListener(pub(crate) TcpListener);

/// One of its connections.
pub(crate) struct PromptStream(TcpStream);

impl PromptStream {
    fn new(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection may answer late");
        }
        Self(stream)
    }

    /// Sends the acknowledgement that is due. The kernel forgets the order at its own discretion, so it is given again
    /// after each reading; if it is refused, the acknowledgement comes later.
    fn acknowledge(&self) {
        let _ = SockRef::from(&self.0).set_tcp_quickack(true);
    }
}

impl Listener for PromptListener {
    type Io = PromptStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PromptStream, SocketAddr) {
        // That of axum logs errors, and waits where they would come again at once.
        let (stream, address) = Listener::accept(&mut self.0).await;
        (PromptStream::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.acknowledge();
        }
        read
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Whether the kernel would acknowledge the next bytes at once.
    fn is_prompt(stream: &TcpStream) -> bool {
        SockRef::from(stream).tcp_quickack().unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_answers_acknowledges_at_once_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = PromptListener(listener).accept().await.0;
        assert!(server.0.nodelay().unwrap());
        let mut byte = [0];
        let mut ever_late = false;
        for _ in 0..20 {
            client.write_all(b"?").await.unwrap();
            server.read_exact(&mut byte).await.unwrap();
            assert!(is_prompt(&server.0));
            server.write_all(b"!").await.unwrap();
            client.read_exact(&mut byte).await.unwrap();
            ever_late |= !is_prompt(&client);
        }
        assert!(
            ever_late,
            "the other side, which gives no such order, shows that it is needed"
        );
    }
}
