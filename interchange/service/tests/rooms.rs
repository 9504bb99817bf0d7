//! The rooms of the service: each uses only rooms below it. Their table stands in `src/app.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest to the highest.
const ROOMS: [&str; 24] = [
    "clock",
    "metrics",
    "secrets",
    "cli",
    "config",
    "store",
    "signing",
    "broker",
    "app",
    "results",
    "revocation",
    "user_endpoints",
    "outbox",
    "lost_queues",
    "intake",
    "clients",
    "users",
    "housekeeping",
    "error",
    "auth",
    "api",
    "check",
    "listener",
    "serve",
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn rank(room: &str) -> usize {
    ROOMS
        .iter()
        .position(|known| *known == room)
        .unwrap_or_else(|| panic!("{room} is no room of the table"))
}

/// The rooms that a file names: in `crate::room::...`, and in `use crate::{room, other_room};`.
fn named(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let identifier = |text: &str| -> String {
        text.chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .collect()
    };
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|letter: char| letter == '_' || letter.is_ascii_alphanumeric()) {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                rooms.insert(identifier(rest));
            }
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                rooms.extend(list.split(',').map(|item| identifier(item.trim())));
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn every_room_uses_only_rooms_below_it() {
    let mut seen = BTreeSet::new();
    for path in files_below(&sources()) {
        let below = path.strip_prefix(sources()).unwrap().to_owned();
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        if room == "main" {
            continue;
        }
        seen.insert(room.to_owned());
        for used in named(&fs::read_to_string(&path).unwrap()) {
            assert!(
                used == room || rank(&used) < rank(room),
                "{} uses {used}, which is not below {room}",
                below.display()
            );
        }
    }
    assert_eq!(
        seen,
        ROOMS.map(str::to_owned).into_iter().collect(),
        "the table names every room"
    );
}

#[test]
fn rooms_are_found_however_they_are_named() {
    let text = "use crate::broker::Live;\nuse crate::{clock, outbox};\nfn f() { crate::store::g() }\nwaypost_crate::no";
    let found: Vec<String> = named(text).into_iter().collect();
    assert_eq!(found, ["broker", "clock", "outbox", "store"]);
}
