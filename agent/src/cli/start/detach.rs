//! `endpoint start --detach`: a child in a session of its own, and its word that it runs.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use endpoint_config::EndpointDirectory;

use crate::cli::arguments::StartOptions;
use crate::cli::error::{CliError, exit_code};
use crate::cli::{complain, print};

/// Starts the endpoint in the background, and waits until it is registered or has failed.
pub(super) fn detach(base: &Path, directory: &EndpointDirectory, options: &StartOptions) -> Result<(), CliError> {
    say_begun(directory);
    let failed = |what: &str, error: std::io::Error| CliError::said(format!("{what}: {error}"), exit_code::ERROR);
    let own = std::env::current_exe().map_err(|error| failed("the endpoint's own executable", error))?;
    let mut command = Command::new(own);
    command
        .arg("--config-dir")
        .arg(base)
        .arg("start")
        .arg(directory.name())
        .arg("--detached");
    if let Some(id) = options.endpoint_uuid {
        command.arg("--endpoint-uuid").arg(id.to_string());
    }
    if options.debug {
        command.arg("--debug");
    }
    // What it says on its way down comes back by this file, and not by a pipe that it would keep open.
    let said = tempfile::tempfile().map_err(|error| failed("a temporary file", error))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said.try_clone().map_err(|error| failed("a temporary file", error))?)
        .current_dir(directory.path())
        .spawn()
        .map_err(|error| failed("the endpoint can not be started", error))?;
    let mut id = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        let _ = stdout.read_to_string(&mut id);
    }
    if !id.trim().is_empty() {
        say_id(id.trim());
        return Ok(());
    }
    let status = child
        .wait()
        .map_err(|error| failed("the endpoint can not be waited for", error))?;
    let mut text = String::new();
    let mut said = said;
    let _ = std::io::Seek::rewind(&mut said).and_then(|()| said.read_to_string(&mut text));
    if text.trim().is_empty() {
        complain(&format!("See {}", directory.log_file().display()));
    }
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit_code::ERROR);
    let text = text.trim().trim_start_matches("Error: ").to_owned();
    Err(CliError::said(
        if text.is_empty() {
            format!("the endpoint ended: {status}")
        } else {
            text
        },
        code.max(1),
    ))
}

/// Says that an endpoint begins to run away from this terminal.
pub(super) fn say_begun(directory: &EndpointDirectory) {
    print(&format!("> Endpoint <{}> starting in detached mode.", directory.name()));
}

/// Says which id an endpoint has that runs there.
pub(super) fn say_id(id: impl std::fmt::Display) {
    print(&format!("  Endpoint ID: {id}"));
}

/// Gives up the standard streams, so that who started it does not wait for more.
pub(super) fn let_go() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}
