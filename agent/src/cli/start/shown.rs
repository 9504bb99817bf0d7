//! Where a running endpoint can be seen and told what to do: metrics, probes, and the socket for other commands.

use std::sync::Arc;

use endpoint_config::listen_address;
use endpoint_telemetry::{Metrics, Probes, serve_control, serve_http};

use super::Start;
use super::orders::Orders;
use crate::cli::error::{CliError, exit_code};
use crate::cli::variable;
use crate::manager::Board;
use crate::state::StateStore;

/// Where the process shows what it does.
pub(super) struct Shown {
    pub(super) metrics: Arc<Metrics>,
    pub(super) probes: Arc<Probes>,
    pub(super) board: Arc<Board>,
}

impl Shown {
    /// Opens the listeners: for metrics and probes, and for other commands. `kept` is the state of a pod.
    pub(super) fn serve(
        &self,
        start: &Start,
        orders: &Arc<Orders>,
        kept: Option<Arc<StateStore>>,
    ) -> Result<(), CliError> {
        let probes = Arc::clone(&self.probes);
        tokio::spawn(async move { probes.watch_event_loop().await });
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
            let bound = serve_http(address, Arc::clone(&self.metrics), Arc::clone(&self.probes)).map_err(|error| {
                CliError::said(
                    format!("{address} can not be listened on for metrics and probes: {error}; `http:` in config.yaml or WAYPOST_HTTP moves it"),
                    exit_code::ERROR,
                )
            })?;
            tracing::info!(address = %bound, "serving metrics and probes");
            self.board.set_http(bound.to_string());
        }
        let (board, orders) = (Arc::clone(&self.board), Arc::clone(orders));
        let control = serve_control(&start.directory.control_socket(), move |request| {
            let (board, orders, kept) = (Arc::clone(&board), Arc::clone(&orders), kept.clone());
            Box::pin(async move { orders.answer(&request, &board, kept.as_deref()).await })
        })
        .map_err(|error| {
            CliError::said(
                format!("{}: {error}", start.directory.control_socket().display()),
                exit_code::ERROR,
            )
        })?;
        tokio::spawn(control);
        Ok(())
    }
}
