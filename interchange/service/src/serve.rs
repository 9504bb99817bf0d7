//! `interchange serve`.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::broker::Broker;
use crate::cli::{LogFormat, ServeArguments};
use crate::config::Settings;
use crate::listener::PromptListener;
use crate::metrics::Metrics;
use crate::secrets::ServerKey;
use crate::signing::Signer;
use crate::store::Store;
use crate::{api, housekeeping, intake, outbox};

/// For so long a stop waits until the tasks of the last submits are noted as sent.
const LAST_SUBMITS: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// What keeps it from starting.
pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let settings = Settings::resolve(arguments)?;
    start_logging(&settings)?;
    let store = Store::open(settings.database.expose_secret()).await?;
    if !store.is_shared() {
        store.release_outbox().await?;
    }
    let listen = settings.listen;
    let server_key = ServerKey::load_or_create(&settings.key_file)?;
    let app = Arc::new(App {
        signer: Signer::open(&store, &server_key).await?,
        form_key: server_key.derive("sign-in form"),
        broker: Broker::new(&settings, server_key)?,
        metrics: Metrics::new()?,
        left_over: Notify::new(),
        handed_over: TaskTracker::new(),
        store,
        settings,
    });
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("can't listen on {listen}; --listen moves it"))?;
    tracing::info!(%listen, "serving");

    let stop = CancellationToken::new();
    let mut rooms = tokio::task::JoinSet::new();
    rooms.spawn(intake::keep_connected(Arc::clone(&app), stop.clone()));
    rooms.spawn(outbox::sweep(Arc::clone(&app), stop.clone()));
    rooms.spawn(housekeeping::keep(Arc::clone(&app), stop.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signalled = stop.clone();
    let handed_over = app.handed_over.clone();
    let served = axum::serve(PromptListener(listener), api::router(app)).with_graceful_shutdown(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = signalled.cancelled() => {}
        }
        tracing::info!("stopping");
    });
    tokio::select! {
        outcome = served => outcome?,
        Some(ended) = rooms.join_next() => {
            ended.context("a part of the service has failed")?;
        }
    }
    handed_over.close();
    // What a broker that holds confirms back leaves in doubt is published again by the next process.
    let _ = tokio::time::timeout(LAST_SUBMITS, handed_over.wait()).await;
    stop.cancel();
    while rooms.join_next().await.is_some() {}
    Ok(())
}

fn start_logging(settings: &Settings) -> anyhow::Result<()> {
    // lapin logs a message that finds no queue with its whole body, which is a user's data.
    let directives = format!("{},lapin::returned_messages=off", settings.log);
    let filter = EnvFilter::try_new(directives).with_context(|| format!("--log {:?} is no filter", settings.log))?;
    let format = settings.log_format.unwrap_or_else(|| {
        if std::io::stderr().is_terminal() {
            LogFormat::Human
        } else {
            LogFormat::Json
        }
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
