//! `endpoint start`: everything from the lock to the last heartbeat.

mod deployment;
mod detach;
mod prepared;
mod signals;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::arguments::StartOptions;
use super::error::{CliError, exit_code};
use super::instance::Instance;
use super::{print, variable};
use crate::config::{Configuration, EndpointDirectory, ProcessConfig, listen_address};
use crate::manager::{Board, DirectEndpoint, TemplateEndpoint, run_shell, user_environment};
use crate::provider::kubernetes::Cluster;
use crate::runtime::{Ended, Environment, EnvironmentSettings};
use crate::service::Registered;
use crate::state::StateStore;
use crate::telemetry::{LogFormat, LogTarget, Metrics, Probes, serve_control, serve_http, start_logs};
use prepared::Prepared;

pub(super) fn start(base: &Path, options: StartOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    if options.detach && !options.detached {
        // What is wrong with the configuration is better said here than by the process in the background.
        directory.read()?;
        return detach::detach(base, &directory, &options);
    }
    if options.detached {
        // Away from the terminal that it was started from; it leads no group yet, so this can not fail.
        let _ = nix::unistd::setsid();
    }
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
        .ok_or_else(|| {
            CliError::said(
                format!(
                    "Another instance of this endpoint is running.  (Perhaps on another login node?)  Refusing to \
                     start.\n\n    Endpoint: {}\n    PID file: {}\n\nUse `endpoint status {0}` to see it, or `endpoint \
                     stop {0}` to stop it.",
                    directory.name(),
                    directory.pid_file().display()
                ),
                exit_code::CANNOT_CREATE,
            )
        })?;
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
    outcome
}

struct Start {
    base: PathBuf,
    directory: EndpointDirectory,
    configuration: Configuration,
    config_text: String,
    process: ProcessConfig,
    options: StartOptions,
}

async fn run(start: Start) -> Result<(), CliError> {
    let (stopping, stop) = watch::channel(false);
    signals::watch_signals(stopping)
        .map_err(|error| CliError::said(format!("signals can not be watched: {error}"), exit_code::ERROR))?;
    let mut early_stop = stop.clone();
    tokio::select! {
        outcome = bring_up(start, stop) => outcome,
        // Until the endpoint runs there is nothing to bring to an end; after that it watches for itself.
        () = stopped_before_running(&mut early_stop) => Ok(()),
    }
}

/// Waits for a stop, and then for longer than any start may hang on.
async fn stopped_before_running(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    if RUNNING.load(std::sync::atomic::Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Whether the endpoint has come so far that it ends by itself when it is told to.
static RUNNING: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

async fn bring_up(start: Start, stop: watch::Receiver<bool>) -> Result<(), CliError> {
    let metrics = Metrics::shared();
    let probes = Arc::new(Probes::default());
    tokio::spawn({
        let probes = Arc::clone(&probes);
        async move { probes.watch_event_loop().await }
    });
    let kind = match &start.configuration {
        Configuration::Template(_) => "template",
        Configuration::Direct(_) => "direct",
    };
    let board = Board::new(start.directory.name(), kind);
    let address = match variable("WAYPOST_HTTP").filter(|text| !text.is_empty()) {
        Some(text) => Some(listen_address(&text).ok_or_else(|| {
            CliError::said(
                format!("WAYPOST_HTTP must be an address and a port, such as 127.0.0.1:9464 (it is {text:?})"),
                exit_code::ERROR,
            )
        })?),
        None => start.process.http,
    };
    if let Some(address) = address {
        let bound = serve_http(address, Arc::clone(&metrics), Arc::clone(&probes)).map_err(|error| {
            CliError::said(
                format!("{address} can not be listened on for metrics and probes: {error}; `http:` in config.yaml or WAYPOST_HTTP moves it"),
                exit_code::ERROR,
            )
        })?;
        tracing::info!(address = %bound, "serving metrics and probes");
        board.set_http(bound.to_string());
    }
    let shown = Arc::clone(&board);
    let control = serve_control(&start.directory.control_socket(), move || {
        serde_json::to_string(&shown.status()).unwrap_or_default()
    })
    .map_err(|error| {
        CliError::said(
            format!("{}: {error}", start.directory.control_socket().display()),
            exit_code::ERROR,
        )
    })?;
    tokio::spawn(control);

    let store = StateStore::open(start.directory.path())?;
    if let Configuration::Direct(config) = &start.configuration
        && let Some(setup) = &config.endpoint_setup
    {
        run_shell("endpoint_setup", setup, start.directory.path())
            .await
            .map_err(|error| CliError::said(error, exit_code::CONFIG))?;
    }
    let worker = worker_executable()?;
    let known = start.directory.endpoint_id()?;
    let asked = match (known, start.options.endpoint_uuid) {
        (Some(known), Some(asked)) if known != asked => {
            return Err(CliError::said(
                format!(
                    "{} says that this endpoint is {known}, and --endpoint-uuid says {asked}",
                    start.directory.id_file().display()
                ),
                exit_code::ERROR,
            ));
        }
        (known, asked) => known.or(asked),
    };
    let prepared = Prepared::new(&start.directory, start.configuration, start.config_text, &metrics).await?;
    let registered = prepared.register(asked).await?;
    let endpoint_id = id_of(&registered);
    check_id(asked, endpoint_id)?;
    store.save_endpoint_id(endpoint_id)?;
    board.set_endpoint_id(endpoint_id);
    tracing::info!(%endpoint_id, name = start.directory.name(), kind, "the endpoint is registered");
    let keys = store.link_keys()?;
    let facts = deployment::facts();
    let environment = Environment::open(EnvironmentSettings {
        endpoint_id,
        directory: start.directory.path().to_owned(),
        token_key: keys.token_key,
        epoch: store.next_epoch()?,
        worker,
        max_held_bytes: start.process.max_held_bytes,
        reconnect_grace: std::time::Duration::from_secs(60),
        endpoint_version: prepared.protocol_version().to_owned(),
        metrics: Arc::clone(&metrics),
        link: facts.link(keys.authority_key)?,
        cluster: Some(Cluster::new(facts.deployment(endpoint_id))),
        release: facts.release(),
    })
    .await?;
    probes.set_ready();
    announce(endpoint_id, start.options.detached);

    RUNNING.store(true, std::sync::atomic::Ordering::Relaxed);
    match (registered, prepared.configuration()) {
        (
            Registered::Template {
                commands, heartbeats, ..
            },
            Configuration::Template(config),
        ) => {
            let owner = prepared.owner().await?;
            TemplateEndpoint {
                directory: start.directory.clone(),
                base: start.base,
                config: config.clone(),
                max_user_endpoints: start.process.max_user_endpoints,
                endpoint_id,
                owner,
                commands,
                heartbeats,
                store,
                environment,
                board,
                metrics,
            }
            .run(stop, || async {
                match prepared.renew(endpoint_id).await {
                    Some(Registered::Template {
                        commands, heartbeats, ..
                    }) => Some((commands, heartbeats)),
                    Some(Registered::Direct(_)) | None => None,
                }
            })
            .await;
        }
        (Registered::Direct(credentials), Configuration::Direct(config)) => {
            let mut config = config.clone();
            config.environment = user_environment(&start.directory);
            let ended = DirectEndpoint {
                directory: start.directory.clone(),
                config,
                config_text: prepared.config_text().to_owned(),
                credentials,
                restored: known.is_some(),
                environment,
                board,
                metrics,
            }
            .run(stop, || async {
                match prepared.renew(endpoint_id).await {
                    Some(Registered::Direct(credentials)) => Some(credentials),
                    Some(Registered::Template { .. }) | None => None,
                }
            })
            .await;
            if let Ended::Failed(reason) = ended {
                return Err(CliError::said(
                    format!("The endpoint failed: {reason}"),
                    exit_code::ERROR,
                ));
            }
        }
        (Registered::Template { .. } | Registered::Direct(_), _) => {
            return Err(CliError::said(
                "Invalid or unexpected registration data structure",
                exit_code::SOFTWARE,
            ));
        }
    }
    tracing::info!(%endpoint_id, "the endpoint has ended");
    Ok(())
}

fn id_of(registered: &Registered) -> Uuid {
    match registered {
        Registered::Template { endpoint_id, .. } => *endpoint_id,
        Registered::Direct(credentials) => credentials.endpoint_id,
    }
}

fn check_id(expected: Option<Uuid>, received: Uuid) -> Result<(), CliError> {
    match expected {
        Some(expected) if expected != received => Err(CliError::said(
            format!(
                "Unexpected response from server: mismatched endpoint id.\n  Expected: {expected}, received: {received}"
            ),
            exit_code::SOFTWARE,
        )),
        _ => Ok(()),
    }
}

/// Tells who started it that it runs: a person by a line, `endpoint start --detach` by the end of the output.
fn announce(endpoint_id: Uuid, detached: bool) {
    if detached {
        print(&endpoint_id.to_string());
        let _ = std::io::stdout().flush();
        detach::let_go();
    } else if std::io::stdout().is_terminal() {
        print(&format!(
            "\n        >>> Endpoint ID: {endpoint_id} <<<\n\n  (Ctrl-C stops the endpoint)\n"
        ));
    }
}

/// The worker executable: `WAYPOST_WORKER`, or `worker` beside this one.
fn worker_executable() -> Result<PathBuf, CliError> {
    let path = match variable("WAYPOST_WORKER").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .map(|own| own.with_file_name("worker"))
            .unwrap_or_else(|_| PathBuf::from("worker")),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(CliError::said(
            format!(
                "there is no worker executable at {}; put it beside `endpoint`, or name it by WAYPOST_WORKER",
                path.display()
            ),
            exit_code::ERROR,
        ))
    }
}
