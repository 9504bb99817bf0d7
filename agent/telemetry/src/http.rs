//! `/metrics`, `/livez` and `/readyz`.
//!
//! They are served from a thread of their own, so that they answer (and say no) when the endpoint's own event loop is
//! stuck.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::Metrics;

/// The event loop counts as stuck if it has not turned for so long.
const STUCK: Duration = Duration::from_secs(10);

/// What the probes are told by the rest of the process.
#[derive(Debug)]
pub struct Probes {
    start: Instant,
    turned_ms: AtomicU64,
    ready: AtomicBool,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            turned_ms: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        }
    }
}

impl Probes {
    /// The configuration is loaded, the state read, the listener for workers open.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Notes that the event loop turns, once a second, for as long as it does.
    pub async fn watch_event_loop(&self) {
        loop {
            self.turned_ms.store(self.now_ms(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_live(&self) -> bool {
        let silent = self.now_ms().saturating_sub(self.turned_ms.load(Ordering::Relaxed));
        Duration::from_millis(silent) < STUCK
    }
}

/// Opens the listener and serves from a thread of its own until the process ends. Gives the address, with the port
/// that was chosen if it was 0.
///
/// # Errors
/// If the address can not be listened on.
pub fn serve_http(address: SocketAddr, metrics: Arc<Metrics>, probes: Arc<Probes>) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router(metrics, probes)).await
        });
        if let Err(error) = served {
            tracing::error!(%error, "metrics and probes are no longer served");
        }
    })?;
    Ok(bound)
}

fn router(metrics: Arc<Metrics>, probes: Arc<Probes>) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State((metrics, _)): State<Shared>| async move {
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.scrape())
            }),
        )
        .route(
            "/livez",
            get(|State((_, probes)): State<Shared>| async move {
                answer(probes.is_live(), "the event loop has not turned for 10 s")
            }),
        )
        .route(
            "/readyz",
            get(|State((_, probes)): State<Shared>| async move {
                answer(probes.ready.load(Ordering::Relaxed), "the endpoint is starting")
            }),
        )
        .with_state((metrics, probes))
}

type Shared = (Arc<Metrics>, Arc<Probes>);

fn answer(good: bool, otherwise: &'static str) -> impl IntoResponse {
    if good {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{otherwise}\n"))
    }
}
