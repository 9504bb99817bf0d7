//! The warm process: started once, asked for executors over its control socket.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Command, Stdio};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use tokio::net::UnixStream;

use crate::python;

/// A running warm process.
#[derive(Debug)]
pub(crate) struct Warm {
    /// Its process id.
    pub(crate) process: i32,
    /// It has imported what it needs.
    pub(crate) ready: bool,
    control: UnixStream,
    received: Vec<u8>,
}

/// What the interpreter is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Versions {
    pub(crate) python_version: String,
    pub(crate) sdk_version: String,
    pub(crate) dill_version: String,
}

/// A line that the warm process says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It can fork executors.
    Ready(Versions),
    /// This Python cannot run tasks; it ends.
    Unusable(String),
    /// The oldest request is fulfilled: an executor has this process id.
    Started(i32),
    /// The oldest request failed.
    Failed(String),
}

impl Warm {
    /// Starts `python` as a warm process.
    ///
    /// # Errors
    /// The system's: `python` is not there, for one.
    pub(crate) fn start(python: &str, settings: &python::Settings) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let child = Command::new(python)
            .args(["-c", python::BOOTSTRAP])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        // Waited for with all other children, not by this handle.
        let process = i32::try_from(child.id()).map_err(io::Error::other)?;
        (&ours).write_all(&python::package(settings)?)?;
        ours.set_nonblocking(true)?;
        Ok(Self {
            process,
            ready: false,
            control: UnixStream::from_std(ours)?,
            received: Vec::new(),
        })
    }

    /// Asks for the executor of `slot` with this channel and this place for its output.
    ///
    /// # Errors
    /// The system's; `WouldBlock` if too many requests are under way.
    pub(crate) fn request(&self, slot: u32, channel: &OwnedFd, output: &OwnedFd) -> io::Result<()> {
        let slot = slot.to_be_bytes();
        let descriptors = [channel.as_raw_fd(), output.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        self.control.try_io(tokio::io::Interest::WRITABLE, || {
            sendmsg::<()>(
                self.control.as_raw_fd(),
                &[IoSlice::new(&slot)],
                &rights,
                MsgFlags::MSG_NOSIGNAL,
                None,
            )
            .map(|_| ())
            .map_err(io::Error::from)
        })
    }

    /// The next line; `None` when the process has closed the socket, which it does only by ending. Cancel-safe.
    ///
    /// # Errors
    /// The system's, or a line that is none of [`Said`].
    pub(crate) async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let said = serde_json::from_slice(&line)?;
                self.ready |= matches!(said, Said::Ready(_));
                return Ok(Some(said));
            }
            self.control.readable().await?;
            match self.control.try_read_buf(&mut self.received) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
