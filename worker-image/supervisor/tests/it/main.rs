//! The real worker binary with a real Python, against a small agent built on the link.
//!
//! `WAYPOST_TEST_PYTHON` names a Python that has `globus-compute-sdk`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one message and keeps every other"
)]
#![expect(clippy::print_stderr, reason = "a failed test shows the worker's log")]

mod accelerators;
mod agent;
mod ending;
mod faults;
mod life;
mod memory;
mod speed;
mod tasks;
mod work;

use std::time::Duration;

/// No test waits longer than this for anything; a machine under load is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// After how many seconds a worker that is to be orphaned is. Its Python must start within them, and does so on a machine
/// under load.
pub(crate) const ORPHANED: &str = "8";
