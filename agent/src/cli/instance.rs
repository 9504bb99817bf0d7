//! At most one process runs an endpoint: the one that holds the lock on its `daemon.pid`.
//!
//! A lock ends with its process, however that ends; so a pid file that a killed endpoint has left is in nobody's way,
//! and one of a live endpoint can not be mistaken for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::Pid;

/// The lock of this process on an endpoint.
#[derive(Debug)]
pub(super) struct Instance {
    file: File,
}

/// Who runs an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody.
    None,
    /// A process.
    Process(Pid),
}

/// A lock on the whole file. Locks of this kind belong to the open file, and can be asked for without being taken: who
/// only looks is in nobody's way.
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        // Both constants are 0 or 1.
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Instance {
    /// Takes the lock and writes the pid. `None` if another process has it.
    pub(super) fn take(pid_file: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(pid_file)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Some(Self { file }))
    }

    /// Gives the lock up and empties the pid file. The file itself stays: who waits for its lock has it open.
    pub(super) fn release(self) {
        let _ = self.file.set_len(0);
    }
}

/// Looks who holds the lock on a pid file.
pub(super) fn holder(pid_file: &Path) -> io::Result<Holder> {
    let file = match File::open(pid_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::None),
        Err(error) => return Err(error),
    };
    // For a moment at its start and its end a process has the lock and no pid in the file.
    for _ in 0..200 {
        let mut lock = whole_file(libc::F_RDLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        if libc::c_int::from(lock.l_type) == libc::F_UNLCK {
            return Ok(Holder::None);
        }
        let text = std::fs::read_to_string(pid_file)?;
        if let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 0) {
            return Ok(Holder::Process(Pid::from_raw(pid)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} is locked and holds no process id", pid_file.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_and_ends_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.pid");
        assert_eq!(holder(&path).unwrap(), Holder::None);
        let first = Instance::take(&path).unwrap().unwrap();
        assert!(Instance::take(&path).unwrap().is_none());
        assert_eq!(holder(&path).unwrap(), Holder::Process(Pid::this()));
        assert!(Instance::take(&path).unwrap().is_none(), "to look does not hinder");
        // As after a kill: the file stays, the lock does not.
        drop(first);
        assert_eq!(holder(&path).unwrap(), Holder::None);
        Instance::take(&path).unwrap().unwrap().release();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
