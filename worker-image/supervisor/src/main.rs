//! The worker: a block's first process. It dials the agent, keeps one Python executor per slot, and hands results back.
//!
//! | module | its one job |
//! |---|---|
//! | `cli` | the command line |
//! | `machine` | every decision, as a pure state machine |
//! | `worker` | the loop between the machine and the world |
//! | `link`, `dial` | the connection to the agent |
//! | `warm`, `python` | the process that forks executors, and the package that it runs |
//! | `channel`, `output` | the pipes to one executor |
//! | `processes`, `memory` | children and control groups |
//! | `log` | the log |

mod channel;
mod cli;
mod dial;
mod link;
mod log;
mod machine;
mod memory;
mod output;
mod processes;
mod python;
mod warm;
mod worker;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::task::LocalSet;
use waypost_link::{Address, tls};

use crate::cli::{Arguments, Command, CommandLine};
use crate::machine::{Machine, Settings};
use crate::warm::{Said, Versions, Warm};
use crate::worker::{Ended, Stop, Worker};

fn main() -> ExitCode {
    match CommandLine::parse() {
        CommandLine {
            command: Some(Command::Install { to }),
            ..
        } => install(&to),
        CommandLine {
            arguments: Some(arguments),
            ..
        } => work(arguments),
        // The parser asks for one of the two.
        CommandLine { .. } => ExitCode::from(2),
    }
}

fn work(arguments: Arguments) -> ExitCode {
    let _log = log::start(arguments.log_format);
    let termination_log = arguments.termination_log.clone();
    let (code, reason) = match prepare(&arguments) {
        Ok(tls) => explain(run(arguments, tls)),
        Err(error) => (2, error),
    };
    if code == 0 {
        tracing::info!("{reason}");
    } else {
        tracing::error!("{reason}");
    }
    // Kubernetes makes this file, and shows what is in it as the reason of the container's end. Elsewhere there is none.
    if termination_log.exists()
        && let Err(error) = fs::write(&termination_log, &reason)
    {
        tracing::warn!("{} cannot be written: {error}", termination_log.display());
    }
    ExitCode::from(code)
}

/// The exit code and the sentence for how the worker ended.
fn explain(ended: io::Result<Ended>) -> (u8, String) {
    match ended {
        Ok(Ended::Drained) => (0, "every task is done and settled".to_owned()),
        Err(error) => (1, format!("the worker cannot go on: {error}")),
        Ok(Ended::Unusable(reason)) => (3, reason),
        Ok(Ended::Refused(reason)) => (4, reason),
        Ok(Ended::Orphaned(reason)) => (5, reason),
        Ok(Ended::Lost(count)) => {
            let reason = format!("{count} tasks could not be settled before the grace was over");
            (6, reason)
        }
    }
}

/// Copies this program into a folder. The copy appears under its name when it is whole.
fn install(folder: &Path) -> ExitCode {
    let copy = || {
        fs::create_dir_all(folder)?;
        let part = folder.join("worker.part");
        fs::copy("/proc/self/exe", &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::rename(&part, folder.join("worker"))
    };
    match copy() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _log = log::start(None);
            tracing::error!("the worker cannot be copied into {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Checks what the command line names, and reads the CA.
fn prepare(arguments: &Arguments) -> Result<Option<Arc<rustls::ClientConfig>>, String> {
    dial::read_token(&arguments.token_file)?;
    let folder = &arguments.working_directory;
    if !folder.is_absolute() {
        return Err(format!(
            "--working-directory must be an absolute path, and {} is not",
            folder.display()
        ));
    }
    fs::create_dir_all(folder)
        .map_err(|error| format!("the working directory {} cannot be made: {error}", folder.display()))?;
    let (slots, accelerators) = (arguments.slots, arguments.accelerators.len());
    if accelerators > 0 && accelerators < slots as usize {
        return Err(format!(
            "--accelerators names {accelerators}, and there are {slots} slots: each needs one"
        ));
    }
    let by_tls = |address: &Address| matches!(address, Address::Tls(_));
    match (arguments.connect.iter().any(by_tls), &arguments.ca_file) {
        (true, None) => Err("--connect tls: needs --ca-file, the agent's CA certificate".to_owned()),
        (true, Some(file)) => {
            let pem = fs::read_to_string(file)
                .map_err(|error| format!("the CA file {} cannot be read: {error}", file.display()))?;
            let config = tls::client_config(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(Some(config))
        }
        (false, _) => Ok(None),
    }
}

fn run(arguments: Arguments, tls: Option<Arc<rustls::ClientConfig>>) -> io::Result<Ended> {
    // What tasks leave behind becomes a child of this process, where it can be ended.
    nix::sys::prctl::set_child_subreaper(true)?;
    let working_directory = arguments.working_directory.to_string_lossy().into_owned();
    let settings = python::Settings {
        endpoint_id: arguments.endpoint_id,
        working_directory,
        sandbox: arguments.sandbox,
        allowed_serializers: arguments.allowed_serializers.clone(),
        result_size_limit: arguments.result_size_limit,
        accelerators: arguments.accelerators.clone(),
    };
    let machine = Machine::new(Settings {
        slots: arguments.slots,
        task_timeout: task_timeout(),
        held_bytes_max: arguments.held_bytes_max,
        memory_per_slot: arguments.memory_per_slot,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let mut stop = Stop::watch()?;
        let python = &arguments.python;
        let started = Warm::start(python, &settings);
        let mut warm = match started {
            Ok(warm) => warm,
            Err(error) => return Ok(Ended::Unusable(format!("{python} cannot be started: {error}"))),
        };
        let patience = arguments.orphan_timeout();
        let ready = tokio::select! {
            versions = ready(&mut warm, patience) => versions.map_err(Ended::Unusable),
            () = stop.told() => {
                tracing::info!("told to end before {python} was ready");
                Err(Ended::Drained)
            }
        };
        let versions = match ready {
            Ok(versions) => versions,
            Err(ended) => {
                processes::kill_executor(warm.process);
                return Ok(ended);
            }
        };
        tracing::info!(
            "tasks run on Python {} with globus-compute-sdk {}, {} at once",
            versions.python_version,
            versions.sdk_version,
            arguments.slots
        );
        Worker::new(arguments, settings, machine, tls, warm, versions)
            .run(&mut stop)
            .await
    });
    // A name that is being looked up must not keep the worker.
    runtime.shutdown_background();
    ended
}

/// Waits until the warm process has imported what it needs.
async fn ready(warm: &mut Warm, patience: Duration) -> Result<Versions, String> {
    let Ok(said) = tokio::time::timeout(patience, warm.next()).await else {
        return Err(format!(
            "the Python was not ready to run tasks within {} s",
            patience.as_secs()
        ));
    };
    match said {
        Ok(Some(Said::Ready(versions))) => Ok(versions),
        Ok(Some(Said::Unusable(reason))) => Err(reason),
        Ok(Some(Said::Started(_) | Said::Failed(_))) => Err("the warm process broke its protocol".to_owned()),
        Ok(None) => Err("the Python ended before it was ready; its own message stands above".to_owned()),
        Err(error) => Err(format!("the warm process cannot be heard: {error}")),
    }
}

/// `GC_TASK_TIMEOUT`, as tasks themselves find it.
fn task_timeout() -> Option<Duration> {
    let seconds: f64 = std::env::var("GC_TASK_TIMEOUT").ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
}
