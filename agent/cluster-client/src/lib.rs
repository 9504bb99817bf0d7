//! A client of the Kubernetes API: each of its requests is counted, whether it is about blocks or about the state.

mod counted;

use std::sync::Arc;
use std::time::Duration;

use endpoint_telemetry::Metrics;
use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::{Client, Config};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use counted::CountLayer;

/// Requests that may wait for the connection.
const QUEUE: usize = 1024;

/// A client that repeats what the server asks to be repeated (429, 503, 504; as it says in `Retry-After`), a few times:
/// what a request means is not known down here. Nothing is connected before it is used.
///
/// # Errors
/// If the configuration can not be used: certificates that can not be read, for one.
pub fn connect(mut config: Config, metrics: &Arc<Metrics>) -> kube::Result<Client> {
    config.default_retry = false;
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(5), 4, true)
        .map_err(|error| kube::Error::Service(error.into()))?;
    let client = ClientBuilder::try_from(config)?
        .with_layer(&CountLayer(Arc::clone(metrics)))
        .with_layer(&BufferLayer::new(QUEUE))
        .with_layer(&RetryLayer::new(policy))
        .with_layer(&BufferLayer::new(QUEUE))
        .build();
    Ok(client)
}
