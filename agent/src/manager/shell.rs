//! `endpoint_setup` and `endpoint_teardown`.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// Runs shell commands of the configuration and logs what they print. An error is a sentence.
pub(crate) async fn run_shell(what: &str, commands: &str, directory: &Path) -> Result<(), String> {
    tracing::info!(commands, "running {what}");
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(commands)
        .current_dir(directory)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{what} could not be started: {error}"))?;
    for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let text = String::from_utf8_lossy(bytes);
        if !text.trim().is_empty() {
            tracing::info!(output = text.trim(), "{what} {stream}");
        }
    }
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{what} failed: {}", output.status))
    }
}
