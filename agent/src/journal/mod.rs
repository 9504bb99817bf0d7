//! What a user endpoint must remember beyond the life of its process: starts, settled ids, tasks that had to be
//! acknowledged early, and results that are yet to be published.
//!
//! Append-only files in the user endpoint's folder. A write must survive the process and not the power, so nothing is
//! synced. A record that a kill tore apart is cut off at the next start. Records go into segments: when one is full or
//! old, the next is begun, and the one before the last is dropped after what still counts in it was copied. So the
//! journal remembers between one and two times an hour's, or the newest 100,000, of the settled. The time in which the
//! process was away does not count, and a start that nothing settled does not age: its task may come again at any time.

mod record;
mod segment;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use waypost_engine::{JournalRecord, TaskId, Time};

use segment::{Segment, numbers, path_of, read};

/// How long, and how many, settled ids must be remembered at least; and how many of the starts that nothing settled.
const SEGMENT_AGE: Duration = Duration::from_secs(60 * 60);
const SEGMENT_RECORDS: usize = 100_000;
/// A segment is ended by its size, too: tasks that are acknowledged early stand in it with their bodies.
const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// Why the journal can not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path} can not be {action}: {source}")]
pub struct JournalError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

/// The journal of one user endpoint, open for appending.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    current: Segment,
    buffer: Vec<u8>,
    buffered: usize,
    began: Time,
}

impl Journal {
    /// Opens the journal in `directory`, which is made if it is missing, and gives back what it remembers. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`JournalError`] if the folder or a file in it can not be made, read or written.
    pub fn open(directory: &Path, now: Time) -> Result<(Self, Vec<JournalRecord>), JournalError> {
        let failed = |action| {
            move |source| JournalError {
                path: directory.to_owned(),
                action,
                source,
            }
        };
        std::fs::create_dir_all(directory).map_err(failed("made"))?;
        let old = numbers(directory).map_err(failed("read"))?;
        let mut records = Vec::new();
        for number in &old {
            records.extend(read(&path_of(directory, *number)).map_err(failed("read"))?);
        }
        let records = what_counts(records);
        // What is remembered is written anew into one segment, so that a torn tail never has anything behind it.
        let number = old.last().map_or(1, |last| last + 1);
        let current = Segment::create(directory, number).map_err(failed("written"))?;
        let mut buffer = Vec::new();
        for record in &records {
            record::write(&mut buffer, record);
            if buffer.len() > 1024 * 1024 {
                current.append(&buffer, 0).map_err(failed("written"))?;
                buffer.clear();
            }
        }
        current.append(&buffer, records.len()).map_err(failed("written"))?;
        buffer.clear();
        for number in old {
            std::fs::remove_file(path_of(directory, number)).map_err(failed("written"))?;
        }
        let journal = Self {
            directory: directory.to_owned(),
            current,
            buffer,
            buffered: 0,
            began: now,
        };
        Ok((journal, records))
    }

    /// Adds a record to those that the next [`Journal::write`] writes.
    pub fn append(&mut self, record: &JournalRecord) {
        record::write(&mut self.buffer, record);
        self.buffered += 1;
    }

    /// Whether there is something to write.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.buffered > 0
    }

    /// Writes what was appended, in one write. It goes to the system's cache and takes microseconds; nothing is synced.
    ///
    /// # Errors
    /// [`JournalError`], a full disk for one. Then none of the records appended since the last write is in the journal.
    pub fn write(&mut self, now: Time) -> Result<(), JournalError> {
        let outcome = self.current.append(&self.buffer, self.buffered);
        self.buffer.clear();
        self.buffered = 0;
        outcome.map_err(|source| JournalError {
            path: path_of(&self.directory, self.current.number()),
            action: "written",
            source,
        })?;
        let (records, bytes) = self.current.size();
        let full = records >= SEGMENT_RECORDS || bytes >= SEGMENT_BYTES;
        if full || now.since(self.began) >= SEGMENT_AGE {
            self.began = now;
            // Not being able to begin a segment is no loss: the present one goes on.
            if let Err(error) = self.rotate() {
                tracing::warn!(%error, directory = %self.directory.display(), "the journal's next segment can not be begun");
            }
        }
        Ok(())
    }

    /// Begins the next segment, and drops the one before the last on a thread of its own.
    fn rotate(&mut self) -> io::Result<()> {
        let last = self.current.number();
        self.current = Segment::create(&self.directory, last + 1)?;
        let current = self.current.clone();
        let directory = self.directory.clone();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            if let Err(error) = forget_before(&directory, last, &current) {
                tracing::warn!(%error, directory = %directory.display(), "an old segment of the journal can not be dropped");
            }
        })?;
        Ok(())
    }
}

/// Drops the segments before `last`, after copying what still counts of them into `current`.
fn forget_before(directory: &Path, last: u64, current: &Segment) -> io::Result<()> {
    let old: Vec<u64> = numbers(directory)?
        .into_iter()
        .filter(|number| *number < last)
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let settled: BTreeSet<TaskId> = read(&path_of(directory, last))?
        .iter()
        .filter_map(settled_task)
        .collect();
    let mut records = Vec::new();
    for number in &old {
        records.extend(read(&path_of(directory, *number))?);
    }
    let settled: BTreeSet<TaskId> = settled
        .into_iter()
        .chain(records.iter().filter_map(settled_task))
        .collect();
    let mut buffer = Vec::new();
    let mut copied = 0;
    for record in &records {
        if !settled.contains(&task_of(record)) {
            record::write(&mut buffer, record);
            copied += 1;
        }
    }
    current.append(&buffer, copied)?;
    for number in old {
        std::fs::remove_file(path_of(directory, number))?;
    }
    Ok(())
}

/// How many results the journal in `directory` holds that the broker has not confirmed, and the next start publishes; 0 if
/// there is none. For who is not its owner: it only reads. Blocks on the disk.
///
/// # Errors
/// [`JournalError`] if a file of it can not be read.
pub fn results_left(directory: &Path) -> Result<usize, JournalError> {
    let read_all = || -> io::Result<usize> {
        let (mut results, mut settled) = (BTreeSet::new(), BTreeSet::new());
        for number in numbers(directory)? {
            for record in read(&path_of(directory, number))? {
                settled.extend(settled_task(&record));
                if let JournalRecord::Result { task, .. } = record {
                    results.insert(task);
                }
            }
        }
        Ok(results.difference(&settled).count())
    };
    match read_all() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        outcome => outcome.map_err(|source| JournalError {
            path: directory.to_owned(),
            action: "read",
            source,
        }),
    }
}

/// Leaves out what may be forgotten: of a settled task everything else, of the settled the old and the excess, and of the
/// other starts the excess. What is old is measured by the newest record and not by the clock: what the broker brings
/// again after a night is what it had when the process was killed.
fn what_counts(records: Vec<JournalRecord>) -> Vec<JournalRecord> {
    let settled: BTreeSet<TaskId> = records.iter().filter_map(settled_task).collect();
    let newest = records.iter().map(at_of).max().unwrap_or_default();
    let excess = settled.len().saturating_sub(SEGMENT_RECORDS);
    let starts = records
        .iter()
        .filter(|record| matches!(record, JournalRecord::Started { task, .. } if !settled.contains(task)))
        .count();
    let excess_starts = starts.saturating_sub(SEGMENT_RECORDS);
    let (mut seen, mut seen_starts) = (0, 0);
    records
        .into_iter()
        .filter(|record| match record {
            JournalRecord::Settled { at, .. } => {
                seen += 1;
                seen > excess && newest.since(*at) <= SEGMENT_AGE
            }
            JournalRecord::Started { task, .. } => {
                let counts = !settled.contains(task);
                seen_starts += usize::from(counts);
                counts && seen_starts > excess_starts
            }
            JournalRecord::Accepted { .. } | JournalRecord::Result { .. } => !settled.contains(&task_of(record)),
        })
        .collect()
}

const fn at_of(record: &JournalRecord) -> Time {
    match record {
        JournalRecord::Settled { at, .. }
        | JournalRecord::Started { at, .. }
        | JournalRecord::Accepted { at, .. }
        | JournalRecord::Result { at, .. } => *at,
    }
}

const fn settled_task(record: &JournalRecord) -> Option<TaskId> {
    match record {
        JournalRecord::Settled { task, .. } => Some(*task),
        JournalRecord::Started { .. } | JournalRecord::Accepted { .. } | JournalRecord::Result { .. } => None,
    }
}

const fn task_of(record: &JournalRecord) -> TaskId {
    match record {
        JournalRecord::Settled { task, .. }
        | JournalRecord::Started { task, .. }
        | JournalRecord::Result { task, .. } => *task,
        JournalRecord::Accepted { task, .. } => task.task,
    }
}

#[cfg(test)]
mod tests;
