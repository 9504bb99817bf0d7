//! At most one process runs an endpoint: the one that holds the lock on its `daemon.pid`.
//!
//! A lock ends with its process, however that ends; so a pid file that a killed endpoint has left is in nobody's way,
//! and one of a live endpoint can not be mistaken for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

/// The lock of this process on an endpoint.
#[derive(Debug)]
pub(super) struct Instance {
    lock: Flock<File>,
}

/// Who runs an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody.
    None,
    /// A process.
    Process(Pid),
}

impl Instance {
    /// Takes the lock and writes the pid. `None` if another process has it.
    pub(super) fn take(pid_file: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(pid_file)?;
        let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Ok(None);
        };
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(std::process::id().to_string().as_bytes())?;
        lock.flush()?;
        Ok(Some(Self { lock }))
    }

    /// Gives the lock up and empties the pid file. The file itself stays: who waits for its lock has it open.
    pub(super) fn release(self) {
        let _ = self.lock.set_len(0);
    }
}

/// Looks who holds the lock on a pid file.
pub(super) fn holder(pid_file: &Path) -> io::Result<Holder> {
    let file = match File::open(pid_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::None),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(Holder::None),
        Err((mut file, _)) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let pid = text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is locked and holds no process id", pid_file.display()),
                )
            })?;
            Ok(Holder::Process(Pid::from_raw(pid)))
        }
    }
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
        // As after a kill: the file stays, the lock does not.
        drop(first);
        assert_eq!(holder(&path).unwrap(), Holder::None);
        Instance::take(&path).unwrap().unwrap().release();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
