//! `endpoint validate`: what is wrong with a configuration, before anything starts.

use std::fs;
use std::path::Path;

use endpoint_config::schema::{self, SchemaError};
use endpoint_config::template::TemplateError;
use endpoint_config::{
    ConfigError, Configuration, DirectoryError, EndpointDirectory, ManagerConfig, Problem, endpoint_config,
    environment_file,
};
use uuid::Uuid;

use super::arguments::ValidateOptions;
use super::error::{CliError, exit_code};
use super::{complain, print};
use crate::manager::{RenderError, rendered};
use crate::state::Asked;

/// What was found in one place.
#[derive(Debug, Default)]
struct Found {
    /// Why an endpoint would not start, or none of its user endpoints.
    problems: Vec<String>,
    /// What it would start with, and somebody may not have meant.
    remarks: Vec<String>,
}

pub(super) fn validate(options: &ValidateOptions) -> Result<(), CliError> {
    let read = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|error| CliError::said(format!("{}: {error}", path.display()), exit_code::NO_INPUT))
    };
    let user_options = match &options.user_options {
        Some(path) => Some(read(path)?),
        None => None,
    };
    let mut wrong = 0;
    for path in &options.paths {
        let found = if path.is_dir() {
            check_folder(path, user_options.as_deref())
        } else {
            check_file(path, &read(path)?)
        };
        for remark in &found.remarks {
            complain(&format!("Note: {remark}"));
        }
        if found.problems.is_empty() {
            print(&format!("{}: ok", path.display()));
        }
        for problem in &found.problems {
            complain(&format!("Error: {problem}"));
        }
        wrong += found.problems.len();
    }
    match wrong {
        0 => Ok(()),
        1 => Err(CliError::said("the configuration has a problem", exit_code::CONFIG)),
        many => Err(CliError::said(
            format!("the configuration has {many} problems"),
            exit_code::CONFIG,
        )),
    }
}

/// A `config.yaml` alone.
fn check_file(path: &Path, text: &str) -> Found {
    let mut found = Found::default();
    match endpoint_config(text, path.parent()) {
        Ok(read) => found.remarks = lines(path, &read.remarks),
        Err(error) => found.problems = config_problems(path, &error),
    }
    found
}

/// An endpoint's folder: `config.yaml`, and the files that a template endpoint has beside it.
fn check_folder(path: &Path, user_options: Option<&str>) -> Found {
    let directory = EndpointDirectory::at(path);
    let mut found = Found::default();
    match directory.read() {
        Ok((read, _)) => {
            found.remarks = lines(&directory.config_file(), &read.remarks);
            if let Configuration::Template(manager) = &read.config.0 {
                check_template(&directory, manager, user_options, &mut found);
            }
        }
        Err(DirectoryError::Config { path, source }) => found.problems = config_problems(&path, &source),
        Err(error) => found.problems.push(error.to_string()),
    }
    let environment = directory.environment_file();
    if let Ok(text) = fs::read_to_string(&environment)
        && let Err(error) = environment_file(&text)
    {
        found.problems.push(format!("{}: {error}", environment.display()));
    }
    found
}

/// Renders the template, as if a submitter had come with these options.
fn check_template(
    directory: &EndpointDirectory,
    manager: &ManagerConfig,
    user_options: Option<&str>,
    found: &mut Found,
) {
    let template = directory.template_file(Some(manager));
    if let Err(error) = fs::read_to_string(&template) {
        found.problems.push(format!("{}: {error}", template.display()));
        return;
    }
    let schema_file = directory.schema_file(Some(manager));
    if schema_file.exists() {
        let read = fs::read_to_string(&schema_file).map_err(|error| error.to_string());
        if let Err(error) = read.and_then(|text| schema::read(&text).map_err(|error| error.to_string())) {
            found.problems.push(format!("{}: {error}", schema_file.display()));
            return;
        }
    }
    let asked = Asked {
        user_options: user_options.unwrap_or("{}").to_owned(),
        user_runtime: "{}".to_owned(),
        matched: Uuid::nil(),
    };
    let hint = "`--user-options` tries it with some";
    match rendered(directory, manager, "uep.validated", &asked) {
        Ok(_) => {}
        // A submitter has to say something; what, only the endpoint's administrator knows.
        Err(RenderError::Schema(SchemaError::Options(_))) if user_options.is_none() => found.remarks.push(format!(
            "{}: it takes no submitter without options, so the template was not tried; {hint}",
            schema_file.display()
        )),
        Err(RenderError::Template(TemplateError::Undefined(what))) if user_options.is_none() => {
            found.remarks.push(format!(
                "{}: {what} without options of a submitter; {hint}",
                template.display()
            ));
        }
        Err(RenderError::Config(error)) => {
            for problem in config_problems(&template, &error) {
                found.problems.push(format!(
                    "{problem} (as rendered {} options)",
                    if user_options.is_some() {
                        "with these"
                    } else {
                        "without"
                    }
                ));
            }
        }
        Err(RenderError::Schema(error)) => found.problems.push(format!("{}: {error}", schema_file.display())),
        Err(error @ (RenderError::File(_) | RenderError::ReservedWord(_) | RenderError::Template(_))) => {
            found.problems.push(format!("{}: {error}", template.display()));
        }
    }
}

fn config_problems(path: &Path, error: &ConfigError) -> Vec<String> {
    match error {
        ConfigError::Syntax(_) => vec![format!("{}: {error}", path.display())],
        ConfigError::Problems(problems) => lines(path, problems),
    }
}

fn lines(path: &Path, problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| format!("{}: {problem}", path.display()))
        .collect()
}
