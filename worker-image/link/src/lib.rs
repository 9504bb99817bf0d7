//! The link between a worker and its agent: messages, their frames, TLS and block tokens. No policy.
//!
//! A worker dials the agent ([`Stream::connect`]), both split the stream ([`split`]), the worker says
//! [`ToAgent::Hello`], the agent answers [`ToWorker::Welcome`] or [`ToWorker::Refused`]. From there on the worker asks
//! for tasks ([`ToAgent::Credit`]), the agent for results ([`ToWorker::ResultCredit`]), and either side takes the
//! other for dead when nothing came for [`DEAD_AFTER`].
//!
//! ```no_run
//! # async fn run(listener: waypost_link::Listener) -> Result<(), Box<dyn std::error::Error>> {
//! use waypost_link::{Limits, ToAgent, ToWorker, split};
//! let stream = listener.accept().await?.complete().await?;
//! let (mut reader, mut writer) = split::<ToAgent, _>(stream, Limits::STRANGER);
//! while let Some(message) = reader.next().await? {
//!     // ... handle it, and all that came with it (`reader.next_received()`), then answer in one write:
//!     writer.push(&ToWorker::Heartbeat)?;
//!     writer.flush().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Bytes from the peer are never trusted: lengths are checked before anything is allocated for them, and no input
//! makes this crate panic.

pub mod codec;
mod connection;
mod error;
pub mod message;
mod stream;
pub mod tls;
mod token;
mod version;

use std::time::Duration;

pub use codec::Limits;
pub use connection::{LinkReader, LinkWriter, split};
pub use error::{AddressError, CodecError, LinkError, TlsError};
pub use message::{Cause, Failure, Held, HeldState, Hello, HelloRefusal, Message, Outcome, Refusal, ToAgent, ToWorker};
pub use stream::{Address, Incoming, Listener, Stream};
pub use token::{BlockToken, TokenKey};
pub use version::{VERSION, VERSIONS, VersionMismatch, VersionRange};

/// After this long without sending anything a side sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// After this long without receiving anything a side takes the other for dead and closes the connection.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);
