//! How a running endpoint is told to stop, and to start again: by signals, and by other commands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::cli::exit_code;
use crate::manager::Board;
use crate::runtime::Stop;
use crate::state::StateStore;

/// What the process was told so far.
#[derive(Debug)]
pub(super) struct Orders {
    stop: watch::Sender<Option<Stop>>,
    /// `endpoint stop` in a pod: the endpoint stops, and the process stays.
    stays: AtomicBool,
    start: Notify,
    end: Notify,
}

impl Orders {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            stop: watch::channel(None).0,
            stays: AtomicBool::new(false),
            start: Notify::new(),
            end: Notify::new(),
        })
    }

    /// How the endpoint is to end, once it is.
    pub(super) fn stop(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Whether the process is to stay when the endpoint has ended.
    pub(super) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// Waits until a process that stayed is told to end, however long ago that was.
    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Waits until a process that stayed is told to start the endpoint again.
    pub(super) async fn started(&self) {
        self.start.notified().await;
    }

    /// Stops at the first SIGTERM or SIGINT, and ends the process at the second. SIGTERM is what a machine says that
    /// goes down, or a cluster that moves the agent: what lives on elsewhere is handed over. Ctrl-C ends everything.
    pub(super) fn watch_signals(self: &Arc<Self>) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Without a terminal to hang up from, a hangup means nothing.
        let mut hangup = signal(SignalKind::hangup())?;
        let orders = Arc::clone(self);
        tokio::spawn(async move {
            let mut asked = false;
            loop {
                let (name, how) = tokio::select! {
                    _ = terminate.recv() => ("SIGTERM", Stop::Terminate),
                    _ = interrupt.recv() => ("SIGINT", Stop::Drain),
                    _ = hangup.recv() => {
                        tracing::info!("SIGHUP is ignored");
                        continue;
                    }
                };
                if asked {
                    tracing::warn!(
                        signal = name,
                        "ending at once; workers that still run end when nobody answers them"
                    );
                    std::process::exit(i32::from(exit_code::FAILED));
                }
                asked = true;
                tracing::info!(
                    signal = name,
                    "stopping: running tasks end first; a second signal ends at once"
                );
                orders.stays.store(false, Ordering::Relaxed);
                orders.stop.send_replace(Some(how));
                orders.end.notify_one();
            }
        });
        Ok(())
    }

    /// Answers a request of another command. In a pod, where `kept` is the state, a stop is a state and not an end: a
    /// process that ended would be started again by the kubelet.
    pub(super) async fn answer(&self, request: &str, board: &Board, kept: Option<&StateStore>) -> String {
        match (request, kept) {
            ("" | "status", _) => serde_json::to_string(&board.status()).unwrap_or_default(),
            ("stop", None) => {
                tracing::info!("`endpoint stop`: running tasks end first");
                self.stop.send_replace(Some(Stop::Drain));
                json!({"stays": false}).to_string()
            }
            ("stop", Some(store)) => match store.set_stopped(true).await {
                Ok(()) => {
                    tracing::info!(
                        "`endpoint stop`: running tasks end first; then the agent waits for `endpoint start`"
                    );
                    self.stays.store(true, Ordering::Relaxed);
                    self.stop.send_replace(Some(Stop::Drain));
                    json!({"stays": true}).to_string()
                }
                Err(error) => json!({"error": error.to_string()}).to_string(),
            },
            ("start", Some(store)) if board.is_stopped() => match store.set_stopped(false).await {
                Ok(()) => {
                    self.start.notify_one();
                    json!({"starts": true}).to_string()
                }
                Err(error) => json!({"error": error.to_string()}).to_string(),
            },
            ("start", _) => json!({"runs": true}).to_string(),
            (other, _) => json!({"error": format!("{other:?} is not known here")}).to_string(),
        }
    }
}
