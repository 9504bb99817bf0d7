//! What `login`, `logout` and `whoami` say without anybody to log in. `tests/python_endpoints` logs in to a real service.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::program::{User, text};
use crate::service::Service;

#[test]
fn without_a_terminal_nobody_can_log_in() {
    let user = User::new();
    let output = user.run(&["login"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(
        text(&output),
        "Error: Unable to run native app login flow: stdin is closed or is not a TTY.\n"
    );
}

#[test]
fn who_has_not_logged_in_is_nobody_and_has_nothing_to_revoke() {
    let user = User::new();
    for arguments in [&["whoami"][..], &["whoami", "--linked-identities"][..]] {
        let output = user.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("Unable to retrieve user information. Please log in again."));
    }
    let output = user.run(&["logout"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!user.base().join("storage.db").exists());
}

#[test]
fn a_client_has_logged_in_by_its_secret() {
    let service = Service::start([]);
    let output = User::of(&service.url()).run(&["login"]);
    // This service has no token for Globus Auth itself, and a client needs both.
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
    assert!(
        text(&output).contains("no token for auth.globus.org"),
        "{}",
        text(&output)
    );
}

#[test]
fn half_of_a_pair_is_refused_by_every_command_that_needs_it() {
    let user = User::new().with("GLOBUS_COMPUTE_CLIENT_SECRET", "hidden-secret");
    for command in ["login", "logout", "whoami"] {
        let output = user.run(&[command]);
        assert_eq!(output.status.code(), Some(77), "{command}: {}", text(&output));
        assert!(
            text(&output).contains("GLOBUS_COMPUTE_CLIENT_ID must be set"),
            "{}",
            text(&output)
        );
        assert!(!text(&output).contains("hidden"));
    }
}

#[test]
fn tokens_that_others_may_read_are_refused() {
    let user = User::new();
    user.configure("mine", "");
    let path = user.base().join("storage.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [&["start", "mine"][..], &["whoami"][..], &["logout"][..]] {
        let output = user.run(arguments);
        assert_eq!(output.status.code(), Some(77), "{}", text(&output));
        assert!(text(&output).contains("chmod 600"), "{}", text(&output));
    }
}
