//! From a registration to a running endpoint.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use endpoint_config::{Configuration, EndpointDirectory};
use endpoint_provider::kubernetes::Cluster;
use secrecy::SecretString;
use tokio::sync::watch;
use uuid::Uuid;

use super::prepared::{Admitted, Prepared};
use super::shown::Shown;
use super::{Start, deployment, detach, notices, patiently};
use crate::auth::keep_fresh;
use crate::cli::error::{CliError, exit_code};
use crate::cli::{print, variable};
use crate::manager::{DirectEndpoint, Renewed, TemplateEndpoint, run_shell, user_environment};
use crate::runtime::{Ended, Environment, EnvironmentSettings, Stop};
use crate::service::Registered;
use crate::state::StateStore;

/// Registers the endpoint, opens what it needs, and runs it.
pub(super) async fn bring_up(
    start: Start,
    shown: &Shown,
    store: Arc<StateStore>,
    stop: watch::Receiver<Option<Stop>>,
) -> Result<(), CliError> {
    let Shown { metrics, probes, board } = shown;
    if let Configuration::Direct(config) = &start.configuration
        && let Some(setup) = &config.endpoint_setup
    {
        run_shell("endpoint_setup", setup, start.directory.path())
            .await
            .map_err(|error| CliError::said(error, exit_code::CONFIG))?;
    }
    let facts = deployment::facts();
    // What is wrong with the deployment is said before anything is called.
    let has_link = facts.link(SecretString::default())?.is_some();
    let worker = worker_executable(has_link)?;
    let known = patiently(|| store.endpoint_id()).await?;
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
    let prepared = Prepared::new(
        &start.base,
        &start.directory,
        start.configuration,
        start.config_text,
        Arc::clone(&store),
        metrics,
    )
    .await?;
    board.set_credentials(prepared.tokens().status());
    let (pod, status, counted) = (facts.pod(), prepared.tokens().status(), Arc::clone(metrics));
    tokio::spawn(async move { notices::tell(pod, status, &counted).await });
    let Admitted {
        registered,
        owner,
        without_service,
    } = admitted(&prepared, asked).await?;
    let tokens = Arc::clone(prepared.tokens());
    tokio::spawn(async move { keep_fresh(&tokens).await });
    let endpoint_id = id_of(&registered);
    check_id(asked, endpoint_id)?;
    let kind = board.kind();
    let without_service = without_service.map(|reason| {
        format!("the service is away ({reason}); the endpoint goes on with the registration of an earlier start")
    });
    if let Some(said) = &without_service {
        tracing::warn!(%endpoint_id, name = start.directory.name(), kind, "{said}");
        board.set_error(said.clone());
    } else {
        store.save_endpoint_id(endpoint_id).await?;
        prepared.keep(&registered, &owner).await;
        tracing::info!(%endpoint_id, name = start.directory.name(), kind, "the endpoint is registered");
    }
    board.set_endpoint_id(endpoint_id);
    let keys = store.link_keys().await?;
    let environment = Environment::open(EnvironmentSettings {
        endpoint_id,
        directory: start.directory.path().to_owned(),
        token_key: keys.token_key,
        epoch: store.next_epoch().await?,
        worker,
        max_held_bytes: start.process.max_held_bytes,
        reconnect_grace: std::time::Duration::from_secs(60),
        endpoint_version: prepared.protocol_version().to_owned(),
        metrics: Arc::clone(metrics),
        link: facts.link(keys.authority_key)?,
        cluster: Some(Cluster::new(facts.deployment(endpoint_id)?, Arc::clone(metrics))),
        release: facts.release(),
    })
    .await?;
    probes.set_ready();
    announce(endpoint_id, start.options.detached);

    super::RUNNING.store(true, std::sync::atomic::Ordering::Relaxed);
    let catching_up = async {
        if without_service.is_some() {
            prepared.catch_up(endpoint_id).await;
            if let Some(said) = &without_service {
                shown.board.clear_error(said);
            }
        }
        std::future::pending::<()>().await;
    };
    let hosting = host(
        Hosted {
            directory: start.directory,
            base: start.base,
            max_user_endpoints: start.process.max_user_endpoints,
            endpoint_id,
            registered,
            owner,
            restored: known.is_some(),
            store,
            environment,
            prepared: &prepared,
        },
        shown,
        stop,
    );
    tokio::select! {
        outcome = hosting => outcome?,
        () = catching_up => {}
    }
    tracing::info!(%endpoint_id, "the endpoint has ended");
    Ok(())
}

/// Registers. Where the credentials come from a folder that others fill, wrong ones are waited for to be mended: an agent
/// that ends would only be started again, and could show nobody what is wrong.
async fn admitted(prepared: &Prepared, known: Option<Uuid>) -> Result<Admitted, CliError> {
    let mut status = prepared.tokens().status();
    loop {
        match prepared.admit(known).await {
            Err(error) if error.is_of_credentials() && prepared.tokens().has_folder() => {
                tracing::error!("the endpoint can not be registered, and waits for other credentials: {error}");
                // What was refused is known as refused by now: this waits for the next that is not.
                tokio::select! {
                    _ = status.wait_for(|status| status.state == "valid") => {}
                    () = keep_fresh(prepared.tokens()) => {}
                }
            }
            outcome => return outcome,
        }
    }
}

/// What an endpoint is hosted with.
struct Hosted<'a> {
    directory: EndpointDirectory,
    base: PathBuf,
    max_user_endpoints: usize,
    endpoint_id: Uuid,
    registered: Registered,
    owner: BTreeSet<Uuid>,
    restored: bool,
    store: Arc<StateStore>,
    environment: Arc<Environment>,
    prepared: &'a Prepared,
}

/// Runs the endpoint until it ends.
async fn host(hosted: Hosted<'_>, shown: &Shown, stop: watch::Receiver<Option<Stop>>) -> Result<(), CliError> {
    let Hosted {
        directory,
        base,
        max_user_endpoints,
        endpoint_id,
        registered,
        owner,
        restored,
        store,
        environment,
        prepared,
    } = hosted;
    let (board, metrics) = (Arc::clone(&shown.board), Arc::clone(&shown.metrics));
    match (registered, prepared.configuration()) {
        (
            Registered::Template {
                commands, heartbeats, ..
            },
            Configuration::Template(config),
        ) => {
            TemplateEndpoint {
                directory,
                base,
                config: config.clone(),
                max_user_endpoints,
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
                    Renewed::With(Registered::Template {
                        commands, heartbeats, ..
                    }) => Renewed::With((commands, heartbeats)),
                    Renewed::With(Registered::Direct(_)) | Renewed::Not => Renewed::Not,
                    Renewed::Over => Renewed::Over,
                }
            })
            .await;
        }
        (Registered::Direct(credentials), Configuration::Direct(config)) => {
            let mut config = config.clone();
            config.environment = user_environment(&directory);
            let ended = DirectEndpoint {
                directory,
                config,
                config_text: prepared.config_text().to_owned(),
                credentials,
                restored,
                environment,
                board,
                metrics,
            }
            .run(stop, || async {
                match prepared.renew(endpoint_id).await {
                    Renewed::With(Registered::Direct(credentials)) => Renewed::With(credentials),
                    Renewed::With(Registered::Template { .. }) | Renewed::Not => Renewed::Not,
                    Renewed::Over => Renewed::Over,
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

/// The worker executable: `WAYPOST_WORKER`, or `worker` beside this one. An endpoint whose workers run in pods may do
/// without.
fn worker_executable(in_pods: bool) -> Result<PathBuf, CliError> {
    let path = match variable("WAYPOST_WORKER").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .map(|own| own.with_file_name("worker"))
            .unwrap_or_else(|_| PathBuf::from("worker")),
    };
    if in_pods || path.is_file() {
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
