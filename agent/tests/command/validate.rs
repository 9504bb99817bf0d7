use std::fs;

use crate::program::{User, text};

#[test]
fn what_configure_writes_is_valid() {
    let user = User::new();
    user.run(&["configure", "mine"]);
    let folder = user.base().join("mine").display().to_string();
    let file = user.file("mine", "config.yaml").display().to_string();
    let output = user.run(&["validate", &folder, &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(text(&output), format!("{folder}: ok\n{file}: ok\n"));
}

#[test]
fn every_problem_is_named_by_file_and_key() {
    let user = User::new();
    user.configure(
        "mine",
        "heartbeat_period: soon\nengine: {type: GlobusComputeEngine, max_worker: 3}\n",
    );
    let file = user.file("mine", "config.yaml").display().to_string();
    for path in [&file, &user.base().join("mine").display().to_string()] {
        let output = user.run(&["validate", path]);
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        for key in ["`heartbeat_period`", "`engine.max_worker`"] {
            let line = format!("Error: {file}: {key}: ");
            assert!(text(&output).contains(&line), "{line} in {}", text(&output));
        }
        assert!(text(&output).ends_with("the configuration has 2 problems\n"));
    }
}

#[test]
fn a_template_is_tried_with_the_options_of_a_submitter() {
    let user = User::new();
    user.configure("mine", "");
    let folder = user.base().join("mine").display().to_string();
    let template = user.file("mine", "user_config_template.yaml.j2");
    let sample = user.base().join("options.json");
    fs::write(&sample, r#"{"workers": 0}"#).unwrap();
    let try_out = |text: &str| {
        fs::write(&template, text).unwrap();
        let plain = user.run(&["validate", &folder]);
        let with = user.run(&["validate", &folder, "--user-options", &sample.display().to_string()]);
        (plain, with)
    };
    let engine = "engine: {type: GlobusComputeEngine, max_workers_per_node: ";
    let (plain, with) = try_out(&format!("{engine}{{{{ workers }}}}}}\n"));
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain));
    assert!(text(&plain).contains("Note: ") && text(&plain).contains("'workers' is undefined"));
    assert_eq!(with.status.code(), Some(78), "{}", text(&with));
    let named = format!("Error: {}: `engine.max_workers_per_node`: ", template.display());
    assert!(text(&with).contains(&named), "{}", text(&with));
    let (plain, _) = try_out("engine: {% if %}\n");
    assert_eq!(plain.status.code(), Some(78), "{}", text(&plain));
    assert!(text(&plain).contains("(TemplateError)"), "{}", text(&plain));
    let (plain, _) = try_out("engines: {}\n");
    assert_eq!(plain.status.code(), Some(78), "{}", text(&plain));
}

#[test]
fn other_files_of_the_folder_are_checked_too() {
    let user = User::new();
    user.configure("mine", "");
    let folder = user.base().join("mine").display().to_string();
    fs::write(user.file("mine", "user_config_schema.json"), "{\"type\": \"nonsense\"}").unwrap();
    fs::write(user.file("mine", "user_environment.yaml"), "- a\n").unwrap();
    let output = user.run(&["validate", &folder]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    for file in ["user_config_schema.json", "user_environment.yaml"] {
        assert!(text(&output).contains(file), "{file} in {}", text(&output));
    }
    fs::remove_file(user.file("mine", "user_config_template.yaml.j2")).unwrap();
    let output = user.run(&["validate", &folder]);
    assert!(
        text(&output).contains("user_config_template.yaml.j2: No such file"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_path_that_is_not_there_ends_with_66() {
    let user = User::new();
    let output = user.run(&["validate", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(66), "{}", text(&output));
    assert!(text(&output).contains("/no/such/file"));
}
