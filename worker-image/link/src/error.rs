use std::io;

/// Why some bytes are not a frame of the link, or a message cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A length that no honest peer sends. Nothing was allocated for it.
    #[error("{what} of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// What was too large: a frame, a header, a payload.
        what: &'static str,
        /// What it would have taken, in bytes.
        length: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// The header is not the msgpack that the message needs.
    #[error("a frame's header cannot be read: {0}")]
    Header(#[from] rmp_serde::decode::Error),
    /// A message could not be written as msgpack.
    #[error("a message cannot be written: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The frames contradict each other or themselves.
    #[error("the peer broke the link's rules: {0}")]
    Rule(&'static str),
}

/// Why a link could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer sent what is not the link's language, or something would have been sent that is not.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The connection ended in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Truncated,
}

/// Why the TLS side of the link could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA's key is not a private key in PEM, or not one that can sign.
    #[error("the link's CA key cannot be used (it must be a PKCS#8 private key in PEM): {0}")]
    Key(rcgen::Error),
    /// A certificate could not be made.
    #[error("a certificate of the link cannot be made: {0}")]
    Certificate(rcgen::Error),
    /// The CA file of a worker holds no certificate.
    #[error("the link's CA file holds no certificate in PEM: {0}")]
    Authority(String),
    /// rustls refused the configuration.
    #[error("the link's TLS configuration is refused: {0}")]
    Config(#[from] rustls::Error),
}

/// Why the text after `--connect` is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address of an agent: it must be unix:PATH or tls:HOST:PORT")]
pub struct AddressError {
    pub(crate) text: String,
}
