//! `endpoint start`: everything from the lock to the last heartbeat.

mod bring_up;
mod deployment;
mod detach;
mod notices;
mod orders;
mod prepared;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use endpoint_config::{BaseConfig, Configuration, EndpointDirectory, ProcessConfig};
use endpoint_telemetry::{LogFormat, LogTarget, Metrics, Probes, ask_control, start_logs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use super::arguments::StartOptions;
use super::error::{CliError, exit_code};
use super::instance::{Holder, Instance, holder};
use super::session::Session;
use super::{on_a_runtime, run_anew, variable};
use crate::auth::AuthError;
use crate::manager::Board;
use crate::runtime::Stop;
use crate::state::{SecretMedium, StateError, StateStore};
use bring_up::bring_up;
use orders::Orders;
use shown::Shown;

pub(super) fn start(base: &Path, options: StartOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    if woken(&directory)? {
        return Ok(());
    }
    if directory.exists() {
        refuse_beside_another(base, &directory)?;
    }
    if options.detach && !options.detached {
        // What is wrong with the configuration is better said here than by the process in the background.
        let (read, _) = directory.read()?;
        check_login(base, read.config.0.base())?;
        return detach::detach(base, &directory, &options);
    }
    if options.detached {
        // Away from the terminal that it was started from; it leads no group yet, so this can not fail.
        let _ = nix::unistd::setsid();
    }
    keep_memory_private();
    let (read, config_text) = directory.read()?;
    let (configuration, process) = read.config;
    let target = if options.detached {
        LogTarget::File(directory.log_file())
    } else {
        LogTarget::Stderr
    };
    let color = !options.no_color && variable("NO_COLOR").is_none();
    let debug = options.debug || configuration.base().debug;
    start_logs(&target, LogFormat::for_target(&target), debug, color)
        .map_err(|error| CliError::said(format!("{}: {error}", directory.log_file().display()), exit_code::ERROR))?;
    for remark in &read.remarks {
        tracing::warn!("config.yaml: {remark}");
    }
    let instance = Instance::take(&directory.pid_file())
        .map_err(|error| CliError::said(format!("{}: {error}", directory.pid_file().display()), exit_code::ERROR))?
        .ok_or_else(|| another_runs(&directory))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::said(format!("the event loop can not be made: {error}"), exit_code::ERROR))?;
    let outcome = runtime.block_on(run(Start {
        base: base.to_owned(),
        directory: directory.clone(),
        configuration,
        config_text,
        process,
        options,
    }));
    // What still runs (such as a notice to a submitter) has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    let _ = std::fs::remove_file(directory.control_socket());
    instance.release();
    match outcome? {
        Outcome::Ended => Ok(()),
        // For the kubelet nothing has ended.
        Outcome::Again => run_anew(),
    }
}

fn another_runs(directory: &EndpointDirectory) -> CliError {
    CliError::said(
        format!(
            "Another instance of this endpoint is running.  (Perhaps on another login node?)  Refusing to start.\n\n    \
             Endpoint: {}\n    PID file: {}\n\nUse `endpoint status {0}` to see it, or `endpoint stop {0}` to stop it.",
            directory.name(),
            directory.pid_file().display()
        ),
        exit_code::CANNOT_CREATE,
    )
}

/// In a pod there is one state, which is that of the endpoint that the pod was made for.
fn refuse_beside_another(base: &Path, directory: &EndpointDirectory) -> Result<(), CliError> {
    let other = EndpointDirectory::list(base)
        .into_iter()
        .find(|other| other.name() != directory.name() && matches!(holder(&other.pid_file()), Ok(Holder::Process(_))));
    match other {
        Some(other) if state_secret().is_some() => Err(CliError::said(
            format!(
                "This pod is that of the endpoint <{}>, and has the state of no other. Install the chart once more, under \
                 another name, for <{}>.",
                other.name(),
                directory.name()
            ),
            exit_code::CANNOT_CREATE,
        )),
        Some(_) | None => Ok(()),
    }
}

/// The process holds credentials: no core dump of it is written. In a pod no other process of its user reads its memory or
/// its environment, either; elsewhere that user can read the files that the credentials are in.
fn keep_memory_private() {
    // Where the kernel does not do it, there is nothing better to be done.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    if state_secret().is_some() {
        let _ = nix::sys::prctl::set_dumpable(false);
    }
}

/// The process in the background has nobody to ask: whoever has to log in is asked before.
fn check_login(base: &Path, config: &BaseConfig) -> Result<(), CliError> {
    let session = Session::open(base, Some(config), Arc::new(Metrics::new()), None)?;
    on_a_runtime(async {
        match session.tokens.login_required().await? {
            Some(reason) => Err(CliError::from(AuthError::LoginRequired(reason))),
            None => Ok(()),
        }
    })
}

/// In a pod: tells the agent that stayed when the endpoint was stopped to start it again. False if there is none.
fn woken(directory: &EndpointDirectory) -> Result<bool, CliError> {
    if state_secret().is_none() || !matches!(holder(&directory.pid_file()), Ok(Holder::Process(_))) {
        return Ok(false);
    }
    let failed = |text: String| CliError::said(text, exit_code::CANNOT_CREATE);
    let answer = ask_control(&directory.control_socket(), "start")
        .map_err(|error| failed(format!("the agent runs, and does not answer: {error}")))?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer).map_err(|_| failed("the agent's answer is not understood".to_owned()))?;
    if answer["runs"] == true {
        return Err(another_runs(directory));
    }
    if let Some(error) = answer["error"].as_str() {
        return Err(failed(format!("the endpoint is not started: {error}")));
    }
    // It runs in the pod's first process, away from whoever says this.
    detach::say_begun(directory);
    if let Ok(Some(id)) = directory.endpoint_id() {
        detach::say_id(id);
    }
    Ok(true)
}

/// The Secret that holds the state of an endpoint that runs in a pod.
pub(super) fn state_secret() -> Option<String> {
    variable("WAYPOST_STATE_SECRET").filter(|name| !name.is_empty())
}

/// What the process does when the endpoint has ended.
enum Outcome {
    /// It ends, too.
    Ended,
    /// It begins anew: the endpoint was stopped in its pod, and is to start.
    Again,
}

struct Start {
    base: PathBuf,
    directory: EndpointDirectory,
    configuration: Configuration,
    config_text: String,
    process: ProcessConfig,
    options: StartOptions,
}

async fn run(start: Start) -> Result<Outcome, CliError> {
    let orders = Orders::new();
    orders
        .watch_signals()
        .map_err(|error| CliError::said(format!("signals can not be watched: {error}"), exit_code::ERROR))?;
    let kind = match &start.configuration {
        Configuration::Template(_) => "template",
        Configuration::Direct(_) => "direct",
    };
    let shown = Shown {
        metrics: Metrics::shared(),
        probes: Arc::new(Probes::default()),
        board: Board::new(start.directory.name(), kind),
    };
    let secret = state_secret();
    let in_pod = secret.is_some();
    let store = Arc::new(match secret {
        Some(name) => open_secret(&start.directory, name, &shown.metrics).await?,
        None => StateStore::in_folder(start.directory.path())?,
    });
    shown.serve(&start, &orders, in_pod.then(|| Arc::clone(&store)))?;

    let mut early_stop = orders.stop();
    let stopped = async {
        if in_pod {
            patiently(|| store.is_stopped()).await
        } else {
            Ok(false)
        }
    };
    let stopped = tokio::select! {
        stopped = stopped => stopped?,
        () = orders.ended() => return Ok(Outcome::Ended),
    };
    if stopped {
        tracing::info!("the endpoint was stopped; the agent waits for `endpoint start`");
        return Ok(idle(&shown, &orders).await);
    }
    tokio::select! {
        outcome = bring_up(start, &shown, store, orders.stop()) => outcome?,
        // Until the endpoint runs there is nothing to bring to an end; after that it watches for itself.
        () = stopped_before_running(&mut early_stop) => {}
    }
    if orders.stays() {
        tracing::info!("the endpoint is stopped; the agent waits for `endpoint start`");
        return Ok(idle(&shown, &orders).await);
    }
    Ok(Outcome::Ended)
}

/// The state in a Secret of this namespace.
async fn open_secret(
    directory: &EndpointDirectory,
    name: String,
    metrics: &Arc<Metrics>,
) -> Result<StateStore, CliError> {
    let namespace = deployment::facts().namespace().ok_or_else(|| {
        CliError::said(
            "WAYPOST_STATE_SECRET names a Secret, and its namespace is not known: outside of a pod WAYPOST_NAMESPACE \
             has to name it",
            exit_code::ERROR,
        )
    })?;
    let secret = SecretMedium::open(name, namespace, metrics).await?;
    Ok(StateStore::in_secret(directory.path(), secret))
}

/// Reads the state, however long the API server is away: there is nothing to run without it.
async fn patiently<T, F>(read: impl Fn() -> F) -> Result<T, StateError>
where
    F: Future<Output = Result<T, StateError>>,
{
    let mut pause = std::time::Duration::from_millis(250);
    loop {
        match read().await {
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the state is not there yet; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(5));
            }
            outcome => return outcome,
        }
    }
}

/// Does nothing, and says so, until the endpoint is to start again or the process to end.
async fn idle(shown: &Shown, orders: &Orders) -> Outcome {
    shown.board.set_stopped();
    shown.probes.set_ready();
    tokio::select! {
        () = orders.started() => Outcome::Again,
        () = orders.ended() => Outcome::Ended,
    }
}

/// Waits for a stop, and then for longer than any start may hang on.
async fn stopped_before_running(stop: &mut watch::Receiver<Option<Stop>>) {
    let _ = stop.wait_for(Option::is_some).await;
    if RUNNING.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Whether the endpoint has come so far that it ends by itself when it is told to.
static RUNNING: AtomicBool = AtomicBool::new(false);
