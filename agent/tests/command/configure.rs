use std::os::unix::fs::PermissionsExt as _;

use crate::program::{User, text};

#[test]
fn configure_writes_the_files_of_an_endpoint_and_says_where() {
    let user = User::new();
    let output = user.run(&["configure", "mine", "--display-name", "It's: mine"]);
    assert!(output.status.success());
    let said = text(&output);
    assert!(
        said.starts_with("Created profile for endpoint named <mine>\n\n\tConfiguration file: "),
        "{said}"
    );
    assert!(
        said.ends_with("Use the `start` subcommand to run it:\n\n\t$ endpoint start mine\n"),
        "{said}"
    );
    for file in [
        "config.yaml",
        "user_config_template.yaml.j2",
        "user_config_schema.json",
        "user_environment.yaml",
    ] {
        assert!(
            said.contains(&user.file("mine", file).display().to_string()),
            "{file} in {said}"
        );
        let mode = std::fs::metadata(user.file("mine", file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = std::fs::metadata(user.base().join("mine"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let config = std::fs::read_to_string(user.file("mine", "config.yaml")).unwrap();
    assert_eq!(config, "display_name: \"It's: mine\"\n");
}

#[test]
fn the_option_for_the_folder_goes_before_the_environment() {
    let user = User::new();
    let other = tempfile::tempdir().unwrap();
    let output = user.run(&["--config-dir", &other.path().display().to_string(), "configure"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(other.path().join("default/config.yaml").exists());
}

#[test]
fn what_can_not_be_configured_is_refused() {
    let user = User::new();
    user.configure("mine", "");
    let again = user.run(&["configure", "mine"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("config dir <mine> already exists"));
    let bad = user.run(&["configure", "no spaces"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad).contains("Invalid endpoint name: no whitespace"));
    let id = user.run(&["configure", "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43"]);
    assert_eq!(id.status.code(), Some(2));
    let source = user.run(&["configure", "other", "--template-config", "/no/such/file"]);
    assert_eq!(source.status.code(), Some(1));
    assert!(text(&source).contains("/no/such/file") && !user.base().join("other").exists());
}

#[test]
fn version_and_wrong_usage_are_as_everywhere() {
    let user = User::new();
    let version = user.run(&["version"]);
    assert!(version.status.success());
    assert!(text(&version).contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(user.run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(user.run(&["start", "--nonsense"]).status.code(), Some(2));
}
