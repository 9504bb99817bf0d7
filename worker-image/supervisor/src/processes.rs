//! Children: reaping, killing, and those that tasks leave behind.

use std::collections::HashSet;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::machine::Ending;

/// Children that have ended, each once.
pub(crate) fn reap() -> Vec<(i32, Ending)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(process, code)) => ended.push((process.as_raw(), Ending::Exit(code))),
            Ok(WaitStatus::Signaled(process, signal, _)) => {
                ended.push((process.as_raw(), Ending::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Err(Errno::EINTR) | Ok(_) => {}
            Err(error) => {
                tracing::warn!("children cannot be waited for: {error}");
                return ended;
            }
        }
    }
}

/// Kills an executor and all of its session that is still in its process group.
pub(crate) fn kill_executor(process: i32) {
    let process = Pid::from_raw(process);
    // The group first: with its leader gone its number could be another's.
    for result in [killpg(process, Signal::SIGKILL), kill(process, Signal::SIGKILL)] {
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!("process {process} cannot be killed: {error}"),
        }
    }
}

/// The children of this process.
pub(crate) fn children() -> Vec<i32> {
    children_of("self").unwrap_or_else(|| {
        // For kernels that do not list children.
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        processes().filter(|process| parent(*process) == Some(own)).collect()
    })
}

/// Kills each child that is not in `known`: what a dead executor left came to this process, a child subreaper.
/// Gives how many there were; their own children come when they have ended.
pub(crate) fn kill_strays(known: &HashSet<i32>) -> usize {
    let strays: Vec<_> = children().into_iter().filter(|child| !known.contains(child)).collect();
    for stray in &strays {
        if let Err(error) = kill(Pid::from_raw(*stray), Signal::SIGKILL)
            && error != Errno::ESRCH
        {
            tracing::warn!("process {stray}, left behind by a task, cannot be killed: {error}");
        }
    }
    strays.len()
}

/// Resident memory of a process and its descendants, and the most that the process itself ever had, in bytes.
pub(crate) fn memory(process: i32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    let mut resident = field("VmRSS:").unwrap_or(0);
    for child in children_of(&process.to_string()).unwrap_or_default() {
        resident += memory(child).0;
    }
    (resident, field("VmHWM:").unwrap_or(0))
}

fn children_of(process: &str) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let list = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        children.extend(list.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    Some(children)
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
