//! The engine depends on nothing that can wait, read a clock or open a socket.

use std::collections::BTreeSet;
use std::process::Command;

const ALLOWED: [&str; 3] = ["bytes", "uuid", "waypost-engine"];

#[test]
fn the_dependency_tree_is_what_it_may_be() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--package",
            "waypost-engine",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--offline",
            "--locked",
        ])
        .args(["--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    let tree: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(tree.contains("bytes"), "the tree could not be read: {text}");
    let foreign: Vec<&&str> = tree.iter().filter(|name| !ALLOWED.contains(name)).collect();
    assert!(foreign.is_empty(), "the engine must not depend on {foreign:?}");
}
