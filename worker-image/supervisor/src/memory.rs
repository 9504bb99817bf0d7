//! How much memory this worker may have and has, from its control group (version 1 or 2).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Above this a limit is none: version 1 says "no limit" with the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// Where the figures of a limit stand.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    folder: PathBuf,
    version: Version,
    /// Says how much is in use, file pages included. Kept open: it is read many times a second.
    usage: File,
    /// In bytes.
    pub(crate) limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl ControlGroup {
    /// The group with the lowest limit that applies to this process, if there is a limit.
    pub(crate) fn find() -> Option<Self> {
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::find_in(Path::new("/sys/fs/cgroup"), &membership)
    }

    fn find_in(root: &Path, membership: &str) -> Option<Self> {
        let mut lowest: Option<Self> = None;
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let (root, version, limit_file, usage_file) = if controllers.is_empty() {
                (root.to_path_buf(), Version::Two, "memory.max", "memory.current")
            } else if controllers.split(',').any(|controller| controller == "memory") {
                let files = ("memory.limit_in_bytes", "memory.usage_in_bytes");
                (root.join("memory"), Version::One, files.0, files.1)
            } else {
                continue;
            };
            // In a container the path may be that of the host, which is not to be seen: the root is the group then.
            let own = root.join(path.trim_start_matches('/'));
            for folder in own.ancestors().take_while(|folder| folder.starts_with(&root)) {
                let limit = number(&folder.join(limit_file)).filter(|limit| *limit < NO_LIMIT);
                if let Some(limit) = limit
                    && lowest.as_ref().is_none_or(|lowest| limit < lowest.limit)
                    && let Ok(usage) = File::open(folder.join(usage_file))
                {
                    lowest = Some(Self {
                        folder: folder.to_path_buf(),
                        version,
                        usage,
                        limit,
                    });
                }
            }
        }
        lowest
    }

    /// How many processes in it the kernel has ended for want of memory. Zero where it does not say (before Linux 4.13).
    pub(crate) fn kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Memory in use that the kernel cannot take back by dropping file pages, in bytes. As long as it is `little` with
    /// them, they are counted too: to say how many they are the kernel adds up the figures of every processor.
    pub(crate) fn used(&self, little: u64) -> Option<u64> {
        let used = number_now(&self.usage)?;
        if used <= little {
            return Some(used);
        }
        let fields = match self.version {
            Version::One => ["total_active_file", "total_inactive_file"],
            Version::Two => ["active_file", "inactive_file"],
        };
        let statistics = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let files: u64 = statistics
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| fields.contains(name))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum();
        Some(used.saturating_sub(files))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The kernel writes such a file anew for each reading from its beginning.
fn number_now(file: &File) -> Option<u64> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0).ok()?;
    str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "pod/memory.max", "1000\n");
        write(root.path(), "pod/memory.current", "900\n");
        write(
            root.path(),
            "pod/memory.stat",
            "anon 500\nactive_file 100\ninactive_file 200\nfile 300\n",
        );
        write(root.path(), "pod/worker/memory.max", "max\n");
        let group = ControlGroup::find_in(root.path(), "0::/pod/worker\n").unwrap();
        assert_eq!(group.kills(), 0);
        write(
            root.path(),
            "pod/memory.events",
            "low 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n",
        );
        assert_eq!(group.kills(), 2);
        assert_eq!(group.limit, 1000);
        assert_eq!(group.used(800), Some(600));
        assert_eq!(group.used(900), Some(900), "so little that file pages do not matter");
        write(root.path(), "pod/memory.current", "1000\n");
        assert_eq!(group.used(900), Some(700), "what is there now");
    }

    #[test]
    fn version_1_is_read_as_well() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory/memory.limit_in_bytes", "2000\n");
        write(root.path(), "memory/memory.usage_in_bytes", "1500\n");
        write(
            root.path(),
            "memory/memory.stat",
            "active_file 7\ntotal_active_file 100\ntotal_inactive_file 50\n",
        );
        let membership = "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/\n";
        let group = ControlGroup::find_in(root.path(), membership).unwrap();
        write(
            root.path(),
            "memory/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        );
        assert_eq!(group.kills(), 4);
        assert_eq!(group.limit, 2000);
        assert_eq!(group.used(0), Some(1350));
    }

    #[test]
    fn no_limit_is_none() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory.max", "max\n");
        assert!(ControlGroup::find_in(root.path(), "0::/\n").is_none());
        write(root.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert!(ControlGroup::find_in(root.path(), "5:memory:/\n").is_none());
        assert!(ControlGroup::find_in(root.path(), "nonsense").is_none());
    }
}
