//! The task generator.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use uuid::Uuid;
use waypost_bench::percentile;
use waypost_protocol::{Message, decode};

use crate::amqp;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: amqp::Place,
    /// A file with one task's wire form; its task id is replaced in each copy.
    #[arg(long)]
    body: PathBuf,
    /// The task id that stands in the body.
    #[arg(long)]
    body_task_id: Uuid,
    /// How many tasks to run.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// How many may be under way at once; 1 measures latency.
    #[arg(long, default_value_t = 2_000)]
    in_flight: usize,
    /// With no result for so many seconds, the run has failed.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// Runs the load and prints its figures.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let connection = amqp::connect(&arguments.place.amqp, "waypost-bench load").await?;
    let publisher = connection.create_channel().await?;
    let mut results = bind_results(&connection.create_channel().await?, &arguments).await?;
    let mut bodies = Bodies::read(&arguments.body, arguments.body_task_id)?;

    let patience = Duration::from_secs(arguments.patience);
    let function = Uuid::new_v4();
    let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
    let mut latencies = Vec::with_capacity(arguments.count);
    let mut published = 0;
    let mut failed = 0;
    let began = Instant::now();
    while latencies.len() < arguments.count {
        while published < arguments.count && under_way.len() < arguments.in_flight {
            let task = Uuid::new_v4();
            under_way.insert(task, Instant::now());
            publisher
                .basic_publish(
                    "".into(),
                    arguments.place.task_queue.as_str().into(),
                    BasicPublishOptions::default(),
                    bodies.with_id(task),
                    amqp::task_properties(task, function),
                )
                .await?;
            published += 1;
        }
        let Ok(delivery) = tokio::time::timeout(patience, results.next()).await else {
            bail!(
                "no result for {patience:?}: {} of {} tasks came back",
                latencies.len(),
                arguments.count
            );
        };
        let delivery = delivery.context("the broker ended the consumer of results")??;
        let Message::Result(result) = decode(&delivery.data)? else {
            bail!("the endpoint published no result")
        };
        // Not ours, or a duplicate: neither belongs to this run's figures.
        let Some(sent) = under_way.remove(&result.task_id) else {
            continue;
        };
        latencies.push(sent.elapsed());
        failed += usize::from(result.error_details.is_some());
    }
    let elapsed = began.elapsed();
    ensure!(
        failed == 0,
        "{failed} of {} tasks failed: the figures would be of something else",
        arguments.count
    );
    latencies.sort_unstable();
    let figures = serde_json::json!({
        "tasks": arguments.count,
        "seconds": elapsed.as_secs_f64(),
        "tasks_per_second": arguments.count as f64 / elapsed.as_secs_f64(),
        "latency_ms": {
            "p50": milliseconds(percentile(&latencies, 50)),
            "p90": milliseconds(percentile(&latencies, 90)),
            "p99": milliseconds(percentile(&latencies, 99)),
            "max": milliseconds(percentile(&latencies, 100)),
        },
    });
    #[expect(clippy::print_stdout, reason = "the figures are this program's output")]
    {
        println!("{figures}");
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn bind_results(channel: &Channel, arguments: &Arguments) -> anyhow::Result<Consumer> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    channel
        .queue_bind(
            queue.name().clone(),
            arguments.place.result_exchange.as_str().into(),
            arguments.place.result_key.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .with_context(|| {
            format!(
                "cannot bind a queue to the exchange {:?}",
                arguments.place.result_exchange
            )
        })?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    Ok(channel
        .basic_consume(queue.name().clone(), "".into(), options, FieldTable::default())
        .await?)
}

/// One task's wire form, given out again and again under new ids.
struct Bodies {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Bodies {
    fn read(path: &PathBuf, id: Uuid) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read the task's body from {}", path.display()))?;
        let id = id.to_string();
        let id_at = bytes
            .windows(id.len())
            .position(|window| window == id.as_bytes())
            .with_context(|| format!("{} does not hold the task id {id}", path.display()))?;
        Ok(Self { bytes, id_at })
    }

    fn with_id(&mut self, id: Uuid) -> &[u8] {
        let place = &mut self.bytes[self.id_at..self.id_at + uuid::fmt::Hyphenated::LENGTH];
        id.hyphenated().encode_lower(place);
        &self.bytes
    }
}
