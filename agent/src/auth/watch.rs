//! Notices that something changes in folders, by inotify.
//!
//! A mounted Secret changes by the swap of a link, an editor by a new file, SQLite in place: whatever it is, who waits
//! looks anew at what counts.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use tokio::io::unix::AsyncFd;

/// What changes within so long of the first change is one change: a file is written in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// Where there is no inotify (its watches are limited for each user), it is looked at so often.
const WITHOUT: Duration = Duration::from_secs(60);

/// Watches folders, for as long as it lives.
pub(super) struct FolderWatch {
    events: Option<AsyncFd<OwnedFd>>,
}

impl FolderWatch {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        let events = Self::open(folders)
            .inspect_err(|error| tracing::debug!(%error, "folders can not be watched; they are looked at each minute"))
            .ok();
        Self { events }
    }

    fn open(folders: Vec<PathBuf>) -> std::io::Result<AsyncFd<OwnedFd>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let what = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB;
        let watched = folders
            .iter()
            .filter(|folder| inotify.add_watch(folder.as_path(), what).is_ok())
            .count();
        if watched == 0 {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        #[expect(deprecated, reason = "the handle is owned, and open for as long as it is registered")]
        AsyncFd::new(inotify.into())
    }

    /// Waits until something has changed since the last call.
    pub(super) async fn changed(&mut self) {
        if let Some(events) = &self.events
            && seen(events).await.is_ok()
        {
            tokio::time::sleep(SETTLE).await;
            while read(events.get_ref(), &mut [0; 4096]).is_ok() {}
        } else {
            tokio::time::sleep(WITHOUT).await;
        }
    }
}

/// Waits for an event.
async fn seen(events: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    loop {
        let mut ready = events.readable().await?;
        if let Ok(outcome) = ready.try_io(|events| Ok(read(events.get_ref(), &mut [0; 4096])?)) {
            return outcome.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn each_way_to_replace_a_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mut watch = FolderWatch::new(vec![path.join("missing"), path.clone()]);
        assert!(watch.events.is_some());
        fs::write(path.join("a"), "in place").unwrap();
        watch.changed().await;
        fs::write(path.join("a"), "again").unwrap();
        watch.changed().await;
        // As a kubelet does: a link is made, and takes the place of the one before.
        std::os::unix::fs::symlink("one", path.join("..data_tmp")).unwrap();
        watch.changed().await;
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        watch.changed().await;
        fs::remove_file(path.join("a")).unwrap();
        watch.changed().await;
    }
}
