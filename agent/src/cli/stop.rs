use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint_config::EndpointDirectory;
use endpoint_telemetry::{Metrics, ask_control};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::arguments::{StartOptions, StopOptions};
use super::error::{CliError, exit_code};
use super::instance::{Holder, holder};
use super::session::Session;
use super::status::{is_stopped_in_pod, running_status};
use super::{complain, on_a_runtime, print};
use crate::journal::results_left;

/// An endpoint that has not ended after so long is reported; it goes on ending.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn stop(base: &Path, options: StopOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    if !directory.exists() {
        directory.read()?;
    }
    if options.remote {
        lock(base, &directory)?;
    }
    stop_process(&directory)
}

pub(super) fn restart(base: &Path, options: StartOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    directory.read()?;
    stop_process(&directory)?;
    super::start::start(base, options)
}

fn lock(base: &Path, directory: &EndpointDirectory) -> Result<(), CliError> {
    let id = directory.endpoint_id()?.ok_or_else(|| {
        CliError::said(
            format!("Endpoint <{}> could not be located", directory.name()),
            exit_code::ERROR,
        )
    })?;
    let (read, _) = directory.read()?;
    let session = Session::open(base, Some(read.config.0.base()), Arc::new(Metrics::new()), None)?;
    on_a_runtime(async { session.service.lock(id).await.map_err(CliError::from) })
}

/// Tells a process to stop its endpoint. True if the process stays, as an agent in a pod does.
fn told_to_stop(directory: &EndpointDirectory, pid: Pid) -> Result<bool, CliError> {
    let failed = |text: String| CliError::said(text, exit_code::FAILED);
    match ask_control(&directory.control_socket(), "stop") {
        Ok(answer) => {
            let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
            match answer["error"].as_str() {
                Some(error) => Err(failed(format!(
                    "endpoint <{}> is not stopped: {error}",
                    directory.name()
                ))),
                None => Ok(answer["stays"] == true),
            }
        }
        // At its start and its end it runs and does not listen.
        Err(_) => match kill(pid, Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(failed(format!(
                "process {pid} of endpoint <{}> can not be signalled: {error}",
                directory.name()
            ))),
        },
    }
}

/// Waits until the endpoint of a process that stays has stopped.
fn wait_until_stopped(directory: &EndpointDirectory) -> Result<(), CliError> {
    let start = Instant::now();
    loop {
        let status = running_status(directory)?.unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or(Value::Null);
        if status["state"] == "stopped" {
            print(&format!(
                "Endpoint <{}> is now stopped. Its agent stays, and `endpoint start {0}` starts it again.",
                directory.name()
            ));
            say_what_is_left(directory);
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(CliError::said(
                format!(
                    "Encountered timeout attempting to stop endpoint {}: running tasks are still waited for. It goes on \
                     stopping.",
                    directory.name()
                ),
                exit_code::FAILED,
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the process of an endpoint, if there is one, and waits until it has ended.
pub(super) fn stop_process(directory: &EndpointDirectory) -> Result<(), CliError> {
    let pid_file = directory.pid_file();
    let look = || {
        holder(&pid_file).map_err(|error| CliError::said(format!("{}: {error}", pid_file.display()), exit_code::FAILED))
    };
    let Holder::Process(pid) = look()? else {
        // A killed endpoint leaves its pid behind.
        let stale = std::fs::metadata(&pid_file).is_ok_and(|file| file.len() > 0);
        if stale {
            let _ = std::fs::write(&pid_file, "");
            print(&format!("Endpoint <{}> has been cleaned up.", directory.name()));
        } else {
            print("Endpoint not active.");
        }
        return Ok(());
    };
    if is_stopped_in_pod(directory) {
        print("Endpoint not active.");
        return Ok(());
    }
    if told_to_stop(directory, pid)? {
        return wait_until_stopped(directory);
    }
    let start = Instant::now();
    while look()? == Holder::Process(pid) {
        if start.elapsed() > PATIENCE {
            return Err(CliError::said(
                format!(
                    "Encountered timeout attempting to stop endpoint {}: process {pid} still waits for running tasks. \
                     It goes on stopping; `kill {pid}` ends it at once.",
                    directory.name()
                ),
                exit_code::FAILED,
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    print(&format!("Endpoint <{}> is now stopped", directory.name()));
    say_what_is_left(directory);
    Ok(())
}

/// Says how many results the broker would not take, if there are any.
fn say_what_is_left(directory: &EndpointDirectory) {
    let left: usize = journals(directory)
        .iter()
        .map(|journal| {
            results_left(journal).unwrap_or_else(|error| {
                complain(&error.to_string());
                0
            })
        })
        .sum();
    match left {
        0 => {}
        1 => print("1 result that the broker did not take is kept in the journal; the next start delivers it."),
        _ => print(&format!(
            "{left} results that the broker did not take are kept in the journal; the next start delivers them."
        )),
    }
}

/// The folders of the journals of an endpoint: its own, and those of its user endpoints, which are beside it.
fn journals(directory: &EndpointDirectory) -> Vec<PathBuf> {
    let mut folders = vec![directory.path().to_owned()];
    if let Ok(Some(id)) = directory.endpoint_id()
        && let Some(base) = directory.path().parent()
    {
        let beside = std::fs::read_dir(base).into_iter().flatten().flatten();
        let own = format!("uep.{id}.");
        folders.extend(
            beside
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&own))
                .map(|entry| entry.path()),
        );
    }
    folders.into_iter().map(|folder| folder.join("journal")).collect()
}
