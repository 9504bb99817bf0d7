//! An endpoint that runs nothing: the floor for any agent that acks late.

use std::pin::Pin;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use uuid::Uuid;
use waypost_protocol::{HEADER_TASK, Message, TaskResult, encode};

use crate::amqp;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: amqp::Place,
    /// Deliveries to hold at once, as the real agent's largest window.
    #[arg(long, default_value_t = 1_000)]
    prefetch: u16,
}

/// Serves until it is killed.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let connection = amqp::connect(&arguments.place.amqp, "waypost-bench echo").await?;
    let tasks = connection.create_channel().await?;
    tasks.basic_qos(arguments.prefetch, BasicQosOptions::default()).await?;
    let results = connection.create_channel().await?;
    results.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut deliveries = tasks
        .basic_consume(
            arguments.place.task_queue.as_str().into(),
            "".into(),
            BasicConsumeOptions {
                exclusive: true,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        )
        .await
        .with_context(|| format!("cannot consume {:?}", arguments.place.task_queue))?;

    let mut confirms = FuturesOrdered::<Pin<Box<dyn Future<Output = lapin::Result<u64>> + Send>>>::new();
    loop {
        tokio::select! {
            delivery = deliveries.next() => {
                let delivery = delivery.context("the broker ended the consumer of tasks")??;
                let Some(task) = task_id(&delivery) else { continue };
                let body = encode(&Message::Result(empty_result(task)));
                let confirm = results
                    .basic_publish(
                        arguments.place.result_exchange.as_str().into(),
                        arguments.place.result_key.as_str().into(),
                        BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                        &body,
                        amqp::result_properties(),
                    )
                    .await?;
                let tag = delivery.delivery_tag;
                confirms.push_back(Box::pin(async move { confirm.await.map(|_| tag) }));
            }
            Some(confirmed) = confirms.next() => {
                tasks.basic_ack(confirmed?, BasicAckOptions::default()).await?;
            }
        }
    }
}

fn task_id(delivery: &lapin::message::Delivery) -> Option<Uuid> {
    let headers = delivery.properties.headers().as_ref()?;
    let id = headers.inner().get(HEADER_TASK)?.as_long_string()?;
    Uuid::try_parse_ascii(id.as_bytes()).ok()
}

fn empty_result(task_id: Uuid) -> TaskResult {
    TaskResult {
        task_id,
        data: String::new(),
        details: None,
        error_details: None,
        task_statuses: Vec::new(),
    }
}
