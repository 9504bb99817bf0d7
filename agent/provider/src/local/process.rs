//! One process, held by a pidfd so that no other process is ever taken for it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use waypost_engine::ProcessExit;

/// A process, by what names it for certain.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    started: u64,
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// A child that was not waited for yet, so that its id is its own.
    pub(super) fn of_child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Self::open(pid)
    }

    /// The process of which this was `/proc/<pid>/stat`, if it still lives.
    pub(super) fn from_stat(text: &str) -> Option<Self> {
        let then = Stat::read(text)?;
        let process = Self::open(then.pid).ok()?;
        (process.started == then.started && process.is_alive()).then_some(process)
    }

    fn open(pid: i32) -> io::Result<Self> {
        let id = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        // Opened first and read then: what is read is of what was opened, or of nothing.
        #[expect(
            deprecated,
            reason = "its unsound cases are types that change their descriptor, as OwnedFd does not"
        )]
        let handle = AsyncFd::new(pidfd_open(id, PidfdFlags::NONBLOCK)?)?;
        let started = Stat::of(pid).ok_or(io::ErrorKind::NotFound)?.started;
        Ok(Self { pid, started, handle })
    }

    /// Whether it runs.
    pub(super) fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_some_and(|now| now.started == self.started && now.runs())
    }

    /// Waits until it has ended.
    pub(super) async fn gone(&self) {
        // An error would mean that the handle can not be watched, which only a broken system says.
        let _ = self.handle.readable().await;
    }

    /// Waits for a child, and says how it ended.
    pub(super) async fn reaped(&self, mut child: Child) -> ProcessExit {
        match child.wait().await {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => ProcessExit::Code(code),
                (None, Some(signal)) => ProcessExit::Signal(signal),
                (None, None) => ProcessExit::Unknown,
            },
            Err(_) => ProcessExit::Unknown,
        }
    }

    /// Ends it: SIGTERM, and after `patience` SIGKILL to it and to everything that descends from it.
    pub(super) async fn end(&self, patience: Duration) {
        let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        if tokio::time::timeout(patience, self.gone()).await.is_ok() {
            return;
        }
        let descendants = descendants(self.pid);
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        for (pid, started) in descendants {
            let same = Stat::of(pid).is_some_and(|now| now.started == started);
            if let (true, Some(pid)) = (same, Pid::from_raw(pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// What is needed of `/proc/<pid>/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    pid: i32,
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    /// Reads it. The second field is a name in brackets that may hold anything, brackets included.
    fn read(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        let (_, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // The start time is field 22; the state is field 3.
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self {
            pid: pid.trim().parse().ok()?,
            state,
            parent,
            started,
        })
    }

    /// Neither dead nor waiting to be reaped.
    const fn runs(self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::read(&String::from_utf8_lossy(&text))
    }
}

/// All processes that descend from one, with their start times.
fn descendants(root: i32) -> Vec<(i32, u64)> {
    let mut children: BTreeMap<i32, Vec<(i32, u64)>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(stat) = pid.and_then(Stat::of) {
            children.entry(stat.parent).or_default().push((stat.pid, stat.started));
        }
    }
    let mut found = Vec::new();
    let mut ask = vec![root];
    while let Some(pid) = ask.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            ask.push(child.0);
            found.push(child);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_even_if_its_name_tries_to_confuse() {
        let line = "42 (a) S 1 (x) ) R 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3\n";
        let stat = Stat {
            pid: 42,
            state: 'R',
            parent: 7,
            started: 987_654,
        };
        assert_eq!(Stat::read(line), Some(stat));
        assert_eq!(Stat::read("42 (short) R 7"), None);
        assert_eq!(Stat::read(""), None);
    }

    #[test]
    fn a_process_reads_its_own_line() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::of(pid).unwrap();
        assert_eq!(stat.pid, pid);
        assert_eq!(stat.parent, i32::try_from(std::os::unix::process::parent_id()).unwrap());
    }
}
