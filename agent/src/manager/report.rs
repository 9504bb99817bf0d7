//! Heartbeats of a template endpoint, and notices that a user endpoint could not start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use endpoint_telemetry::{Connection, Metrics};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;
use waypost_protocol::{AmqpCredentials, Message, QueueInfo, StatusReport, encode};

use crate::broker::Publisher;

/// A notice that can not be sent for so long is given up.
const NOTICE_PATIENCE: Duration = Duration::from_secs(60);

fn report(endpoint_id: Uuid, state: serde_json::Value) -> Bytes {
    let serde_json::Value::Object(global_state) = state else {
        return Bytes::new();
    };
    encode(&Message::StatusReport(StatusReport {
        endpoint_id,
        global_state,
        task_statuses: serde_json::Map::new(),
    }))
    .into()
}

fn seconds(time: Duration) -> serde_json::Value {
    if time.subsec_nanos() == 0 {
        json!(time.as_secs())
    } else {
        json!(time.as_secs_f64())
    }
}

/// Sends a template endpoint's heartbeats: one now, one each `period`, and when `stop` turns true a last one that says
/// that no more will come.
pub(crate) async fn heartbeats(
    endpoint_id: Uuid,
    queue: QueueInfo,
    period: Duration,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let publisher = Publisher::start(
        queue,
        format!("endpoint {endpoint_id} heartbeats"),
        Connection::Heartbeats,
        Arc::clone(&metrics),
    );
    let beat = report(endpoint_id, json!({ "heartbeat_period": seconds(period) }));
    let last = report(endpoint_id, json!({ "heartbeat_period": 0 }));
    loop {
        let sent = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            sent = publisher.publish(beat.clone()) => sent,
        };
        metrics.heartbeats.increment((&sent).into());
        // A heartbeat that failed is made up for soon: while none comes the service shows the endpoint as offline.
        let pause = match sent {
            Ok(()) => period,
            Err(error) => {
                tracing::warn!(%error, "the heartbeat could not be sent");
                period.min(Duration::from_secs(2))
            }
        };
        if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
            break;
        }
    }
    match tokio::time::timeout(Duration::from_secs(5), publisher.publish(last)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last heartbeat could not be sent"),
        Err(_) => tracing::warn!("the last heartbeat could not be sent within 5 s"),
    }
    publisher.close().await;
}

/// Tells the submitter that a user endpoint can not run, through the service. It is tried for a minute.
pub(crate) async fn failure_notice(credentials: AmqpCredentials, text: String, metrics: Arc<Metrics>) {
    let endpoint_id = credentials.endpoint_id;
    let body = report(endpoint_id, json!({ "error": text, "heartbeat_period": 3 }));
    let publisher = Publisher::start(
        credentials.heartbeat_queue_info,
        format!("user endpoint {endpoint_id} failure notice"),
        Connection::Heartbeats,
        metrics,
    );
    let send = async {
        let mut pause = Duration::from_secs(1);
        while let Err(error) = publisher.publish(body.clone()).await {
            tracing::warn!(%error, user_endpoint = %endpoint_id, "the failure notice could not be sent");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(15));
        }
    };
    if tokio::time::timeout(NOTICE_PATIENCE, send).await.is_err() {
        tracing::error!(user_endpoint = %endpoint_id, "the submitter could not be told that the user endpoint failed");
    }
    publisher.close().await;
}
