//! Makes a child the leader of a session of its own.
//!
//! One of the two uses of `unsafe` in this crate: the standard library has no stable call for it, and its `pre_exec` is unsafe
//! because between fork and exec only async-signal-safe functions may be called. `setsid` is one (signal-safety(7)),
//! and nothing is allocated or locked beside it.
#![expect(unsafe_code, reason = "see the module's documentation")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has the child lead a session of its own: signals for the agent's terminal or process group do not reach it.
pub(super) fn lead(command: &mut Command) {
    // SAFETY: the closure calls setsid alone, which is async-signal-safe; io::Error::from of an errno does not allocate.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}
