use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_engine::JournalRecord;

use super::record;

/// One file of the journal, open for appending.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    number: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: File,
    records: usize,
    bytes: u64,
}

impl Segment {
    pub(super) fn create(directory: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path_of(directory, number))?;
        let state = State {
            file,
            records: 0,
            bytes: 0,
        };
        Ok(Self {
            number,
            state: Arc::new(Mutex::new(state)),
        })
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// How many records, and how many bytes, were appended.
    pub(super) fn size(&self) -> (usize, u64) {
        let state = self.lock();
        (state.records, state.bytes)
    }

    /// Writes whole records. If that fails, what was written of them is taken back, so that nothing comes to stand
    /// behind a torn record.
    pub(super) fn append(&self, bytes: &[u8], records: usize) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let written = state.file.write_all(bytes);
        if written.is_err() {
            let length = state.bytes;
            let _ = state.file.set_len(length);
            return written;
        }
        state.records += records;
        state.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.journal"))
}

/// The segments that exist, oldest first.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_suffix(".journal"))
            .and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The whole records of a segment. What stands behind the last of them was torn by a kill and is left out.
pub(super) fn read(path: &Path) -> io::Result<Vec<JournalRecord>> {
    let bytes = bytes::Bytes::from(std::fs::read(path)?);
    let (records, rest) = record::read_all(bytes);
    if rest > 0 {
        tracing::info!(path = %path.display(), bytes = rest, "the journal's last record was torn, and is left out");
    }
    Ok(records)
}
