use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::program::{User, eventually, text};

#[test]
fn list_and_status_tell_what_was_only_configured() {
    let user = User::new();
    assert_eq!(
        text(&user.run(&["list"])),
        "No endpoints configured!\n\n (Hint: endpoint configure)\n"
    );
    user.configure("mine", "");
    let list = text(&user.run(&["list"]));
    assert!(list.contains("| None        | Initialized | mine          |"), "{list}");
    let status = user.status("mine");
    assert_eq!(status["state"], "initialized");
    assert!(status["pid"].is_null() && status["user_endpoints"].as_array().unwrap().is_empty());
    for key in [
        "blocks",
        "slots",
        "tasks_waiting",
        "tasks_running",
        "oldest_wait_ms",
        "last_error",
    ] {
        assert!(status.get(key).is_some(), "{key}");
    }
    assert_eq!(user.run(&["status", "absent"]).status.code(), Some(1));
}

#[test]
fn delete_asks_and_removes_what_was_never_registered() {
    let user = User::new();
    user.configure("mine", "");
    let asked = user.run(&["delete", "mine"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked).contains("Are you sure you want to delete endpoint < mine >"));
    assert!(user.base().join("mine").exists());
    let deleted = user.run(&["delete", "mine", "--yes"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    assert!(!user.base().join("mine").exists());
}

/// A GET, by hand.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Of a metric: its type, its help, and its labels with their values.
#[derive(Default)]
struct Row {
    kind: String,
    help: String,
    labels: Vec<(String, BTreeSet<String>)>,
}

/// The table of `docs/metrics.md` for what was scraped.
fn table(scrape: &str) -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            rows.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            rows.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let labels = rest.split_once('}').unwrap().0;
            for pair in labels.split(',').filter(|pair| !pair.starts_with("le=")) {
                let (label, value) = pair.split_once('=').unwrap();
                let labels = &mut rows.entry(name.to_owned()).or_default().labels;
                let value = value.trim_matches('"').to_owned();
                match labels.iter_mut().find(|(known, _)| known == label) {
                    Some((_, values)) => _ = values.insert(value),
                    None => labels.push((label.to_owned(), BTreeSet::from([value]))),
                }
            }
        }
    }
    let mut text = String::from("| metric | type | label | values | meaning |\n|---|---|---|---|---|\n");
    for (name, Row { kind, help, labels }) in rows {
        let names: Vec<String> = labels.iter().map(|(label, _)| format!("`{label}`")).collect();
        let values: Vec<String> = labels
            .into_iter()
            .map(|(_, values)| values.into_iter().collect::<Vec<_>>().join(", "))
            .collect();
        text += &format!(
            "| `{name}` | {kind} | {} | {} | {help} |\n",
            names.join("; "),
            values.join("; ")
        );
    }
    text
}

#[test]
fn a_real_scrape_has_the_metrics_that_the_documentation_lists() {
    // No service answers there, so it stays at its start, with everything open that it shows.
    let user = User::of("http://127.0.0.1:1").with("WAYPOST_HTTP", "127.0.0.1:0");
    user.configure("mine", "engine: {}\n");
    let start = user.spawn(&["start", "mine"]);
    let address = eventually("the address", || {
        user.status("mine")["http"].as_str().map(str::to_owned)
    });
    let (status, scrape) = get(&address, "/metrics");
    assert_eq!(status, 200);
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let table = table(&scrape);
    assert!(
        documented.contains(&table),
        "docs/metrics.md should have this table:\n\n{table}"
    );
    assert_eq!(get(&address, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/readyz").0, 503, "it waits for the service");
    assert_eq!(get(&address, "/nonsense").0, 404);
    drop(start);
}
