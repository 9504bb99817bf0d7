use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{AcceptedTask, BlockId, FunctionId};

use super::*;

fn task(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn started(number: u128, second: u64) -> JournalRecord {
    JournalRecord::Started {
        task: task(number),
        attempt: 3,
        block: BlockId { epoch: 9, number: 4 },
        at: at(second),
    }
}

fn settled(number: u128, second: u64) -> JournalRecord {
    JournalRecord::Settled {
        task: task(number),
        at: at(second),
    }
}

fn accepted(number: u128, body: Option<&'static [u8]>) -> JournalRecord {
    let task = AcceptedTask {
        task: task(number),
        function: FunctionId(Uuid::from_u128(77)),
        resource_specification: Some(Arc::from("{\"num_nodes\": 1}")),
        result_serializers: Some(Arc::from(vec!["a.B".to_owned(), "c.D".to_owned()])),
        body: body.map(Bytes::from_static),
    };
    JournalRecord::Accepted { task, at: at(5) }
}

fn write_all(directory: &Path, records: &[JournalRecord]) {
    let (mut journal, _) = Journal::open(directory, at(10)).unwrap();
    for record in records {
        journal.append(record);
    }
    journal.write(at(10)).unwrap();
}

#[test]
fn every_kind_of_record_is_read_back_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let failed = JournalRecord::Result {
        task: task(4),
        body: Bytes::from_static(b"\x01{}"),
        at: at(6),
    };
    let records = [
        started(1, 5),
        settled(2, 5),
        accepted(3, Some(b"\x01task")),
        accepted(5, None),
        failed,
    ];
    write_all(directory.path(), &records);
    let (_, read) = Journal::open(directory.path(), at(11)).unwrap();
    assert_eq!(read, records);
    let (_, again) = Journal::open(directory.path(), at(12)).unwrap();
    assert_eq!(again, records, "compaction at a start loses nothing");
}

#[test]
fn results_that_no_broker_took_are_counted_by_who_only_reads() {
    let directory = tempfile::tempdir().unwrap();
    let result = |number| JournalRecord::Result {
        task: task(number),
        body: Bytes::from_static(b"\x01{}"),
        at: at(6),
    };
    let missing = directory.path().join("missing");
    assert_eq!(results_left(&missing).unwrap(), 0);
    assert!(!missing.exists());
    let records = [result(1), result(2), result(3), started(4, 5), settled(2, 7), result(3)];
    write_all(directory.path(), &records);
    assert_eq!(results_left(directory.path()).unwrap(), 2);
}

#[test]
fn a_torn_tail_of_any_length_costs_only_the_torn_record() {
    let directory = tempfile::tempdir().unwrap();
    write_all(directory.path(), &[started(1, 5), accepted(2, Some(b"body"))]);
    let path = path_of(directory.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let first = {
        let mut bytes = Vec::new();
        record::write(&mut bytes, &started(1, 5));
        bytes.len()
    };
    for length in first..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(read(&path).unwrap(), [started(1, 5)], "cut after {length} bytes");
    }
    // A power cut may leave zeros instead.
    let mut zeros = whole[..first].to_vec();
    zeros.extend([0; 100]);
    std::fs::write(&path, zeros).unwrap();
    assert_eq!(read(&path).unwrap(), [started(1, 5)]);
}

#[test]
fn of_a_settled_task_only_that_is_remembered_and_a_start_that_nothing_settled_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    write_all(
        directory.path(),
        &[started(1, 5), accepted(1, Some(b"x")), settled(1, 7), started(2, 5)],
    );
    let (_, soon) = Journal::open(directory.path(), at(60)).unwrap();
    assert_eq!(soon, [settled(1, 7), started(2, 5)]);
    let (mut journal, after_a_night) = Journal::open(directory.path(), at(12 * 3600)).unwrap();
    assert_eq!(
        after_a_night, soon,
        "the time in which the process was away does not count"
    );
    journal.append(&settled(3, 12 * 3600));
    journal.write(at(12 * 3600)).unwrap();
    let (_, later) = Journal::open(directory.path(), at(12 * 3600)).unwrap();
    assert_eq!(later, [started(2, 5), settled(3, 12 * 3600)]);
}

#[test]
fn of_starts_that_nothing_settled_the_newest_are_remembered() {
    let many = SEGMENT_RECORDS as u64 + 10;
    let records = (0..many).map(|number| started(number.into(), number)).collect();
    let kept = what_counts(records);
    assert_eq!(kept.len(), SEGMENT_RECORDS);
    assert_eq!(
        (kept.first(), kept.last()),
        (Some(&started(10, 10)), Some(&started(u128::from(many) - 1, many - 1)))
    );
}

#[test]
fn a_task_that_was_acknowledged_early_is_kept_over_segments_until_it_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(directory.path(), at(0)).unwrap();
    journal.append(&accepted(1, Some(b"keep")));
    journal.append(&accepted(2, Some(b"drop")));
    journal.write(at(0)).unwrap();
    journal.append(&settled(2, 1));
    // The segment is an hour old with this write, and a second one with the next.
    journal.write(at(3600)).unwrap();
    journal.append(&settled(3, 3600));
    journal.write(at(7200)).unwrap();
    forget_before(directory.path(), journal.current.number(), &journal.current).unwrap();
    drop(journal);
    let (_, read) = Journal::open(directory.path(), at(7201)).unwrap();
    assert_eq!(
        read.iter()
            .filter(|record| **record == accepted(1, Some(b"keep")))
            .count(),
        1,
        "{read:?}"
    );
    assert!(
        read.iter()
            .all(|record| task_of(record) != task(2) || settled_task(record).is_some()),
        "{read:?}"
    );
}
