//! A Unix socket or TLS over TCP behind one type.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::AddressError;
use crate::tls::SERVER_NAME;

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tls:HOST:PORT`
    Tls(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || AddressError { text: text.to_owned() };
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tls", address)) => match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(Self::Tls(address.to_owned()))
                }
                _ => Err(error()),
            },
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tls(address) => write!(formatter, "tls:{address}"),
        }
    }
}

/// A connection between a worker and an agent.
#[derive(Debug)]
pub enum Stream {
    /// On one machine.
    Unix(UnixStream),
    /// Over a network.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Dials an agent.
    ///
    /// # Errors
    /// The connection's or the handshake's; `InvalidInput` if a TLS address comes without a configuration.
    pub async fn connect(address: &Address, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        match address {
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            Address::Tls(address) => {
                let config = tls.ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a TLS address needs the agent's CA certificate",
                    )
                })?;
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                Ok(Self::Tls(Box::new(TlsStream::Client(stream))))
            }
        }
    }
}

/// Where workers are waited for.
pub enum Listener {
    /// On one machine.
    Unix(UnixListener),
    /// Over a network.
    Tls(TcpListener, TlsAcceptor),
}

/// A connection that was accepted and has yet to shake hands.
pub enum Incoming {
    /// Nothing to shake.
    Unix(UnixStream),
    /// A TLS handshake is due.
    Tls(TcpStream, TlsAcceptor),
}

impl Listener {
    /// Listens on a Unix socket. A file that a dead listener left in its place is removed; the caller holds the
    /// endpoint's lock, so nobody alive listens there.
    ///
    /// # Errors
    /// The system's.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self::Unix(UnixListener::bind(path)?))
    }

    /// Takes TLS connections from a TCP listener.
    #[must_use]
    pub fn tls(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self::Tls(listener, TlsAcceptor::from(config))
    }

    /// Waits for a connection. Cancel-safe. The handshake is not part of it ([`Incoming::complete`]), so a slow peer
    /// holds up nobody.
    ///
    /// # Errors
    /// The system's: too many open files, for one. The listener can be asked again.
    pub async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Unix(listener) => Ok(Incoming::Unix(listener.accept().await?.0)),
            Self::Tls(listener, acceptor) => Ok(Incoming::Tls(listener.accept().await?.0, acceptor.clone())),
        }
    }
}

impl Incoming {
    /// Shakes hands. Put a time limit on it: a peer may stay silent.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn complete(self) -> io::Result<Stream> {
        match self {
            Self::Unix(stream) => Ok(Stream::Unix(stream)),
            Self::Tls(stream, acceptor) => {
                stream.set_nodelay(true)?;
                let stream = acceptor.accept(stream).await?;
                Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "unix:/run/agent.sock",
            "tls:agent.example:5000",
            "tls:[::1]:7",
            "tls:10.0.0.1:65535",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_named_in_the_error() {
        for text in [
            "",
            "unix:",
            "tls:",
            "tls:host",
            "tls::5000",
            "tls:host:port",
            "tls:host:70000",
            "tcp:h:1",
            "/a",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} is not an address")));
        }
    }
}
