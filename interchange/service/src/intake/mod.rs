//! What comes in over AMQP: results and heartbeats; and the connection that they come by, which is made again whenever
//! it is lost.

mod consumer;
mod heartbeats;
mod prepare;
mod results;

use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio_util::sync::CancellationToken;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, Live, at_most, failure, new_channel};

/// The longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Connects to the broker, and again whenever the connection is lost, until `stop`.
pub(crate) async fn keep_connected(app: Arc<App>, stop: CancellationToken) {
    let mut pause = Duration::from_millis(100);
    loop {
        let session = async {
            let (live, consuming) = app.broker.connect().await?;
            prepare::prepare(&app, &live).await?;
            Ok::<_, WorkError>((Arc::new(live), consuming))
        };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = session => outcome,
        };
        match outcome {
            Ok((live, consuming)) => {
                tracing::info!("connected to the broker");
                pause = Duration::from_millis(100);
                app.metrics.broker_connected.set(1);
                app.broker.set_live(Some(Arc::clone(&live)));
                let ended = tokio::select! {
                    () = stop.cancelled() => None,
                    ended = serve(&app, &live, &consuming) => Some(ended),
                };
                app.broker.set_live(None);
                app.metrics.broker_connected.set(0);
                match &ended {
                    None => {}
                    Some(Err(error)) => tracing::warn!(%error, "lost the broker"),
                    Some(Ok(())) => tracing::warn!("lost the broker: it ended a consumer"),
                }
                at_most(consuming.close(200, "ending".into())).await;
                live.close().await;
                if ended.is_none() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the broker can't be used yet"),
        }
        app.metrics.broker_reconnects.inc();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jitter(pause)) => {}
        }
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Between half and the whole of a pause, so that replicas don't come back all at once.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pause is half as long, which harms nothing.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

/// Consumes results and heartbeats until a connection or consumer ends.
async fn serve(app: &Arc<App>, live: &Arc<Live>, consuming: &Connection) -> Result<(), BrokerError> {
    let heartbeats = new_channel(consuming).await?;
    tokio::select! {
        outcome = results::consume(app, live, consuming) => outcome,
        outcome = heartbeats::consume(app, &heartbeats) => outcome,
        error = live.failed() => Err(error),
        error = failure(consuming, "consuming") => Err(error),
    }
}
