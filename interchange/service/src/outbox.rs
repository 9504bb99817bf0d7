//! Tasks on their way to the broker.
//!
//! A submit writes its tasks and their outbox entries together, publishes, and drops the claims on entries that the broker
//! has confirmed; the entries stay until their tasks have results, for the broker may lose them. What is left over,
//! because this or another replica died or the broker went away, is published by the sweep here: when the service starts,
//! when the broker is back, and now and then for the sake of dead replicas.
//!
//! An entry that was published and not confirmed is in doubt. As long as its channel is open the broker may still confirm
//! it, however late, so the replica that published it keeps its claim and nobody publishes it again. When the channel has
//! closed nobody can say any more, and the entry is published once more: a task may then arrive twice, under one id.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use waypost_protocol::{HEADER_FUNCTION, HEADER_RESOURCES, HEADER_SERIALIZERS, HEADER_TASK, Message, Task, encode};

use crate::app::{App, WorkError};
use crate::broker::{Live, Outgoing, Published, Publisher, endpoint_queue, persistent};
use crate::clock::{self, Milliseconds};
use crate::store::{EndpointKind, OutboxEntry, Submission};
use crate::user_endpoints;

/// For so long nobody but the replica that claims an entry publishes it. A living replica renews its claims.
const CLAIM: Duration = Duration::from_secs(10);
/// How often a replica renews the claims of what it is publishing.
const RENEWAL: Duration = Duration::from_secs(3);
/// For so long a submit waits for the broker's confirms. Its tasks are accepted all the same, and a client that gave up
/// waiting would submit them a second time.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(10);
/// How often entries of dead replicas are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// The pause before the store is asked again to note what the broker has confirmed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The bytes of tasks that are made into messages at once.
const PART_BYTES: usize = 32 << 20;
/// Entries that are taken over at once: each may have a payload of 10 MiB.
const SWEEP_LIMIT: i64 = 32;

/// Until when an entry that is claimed now is claimed.
pub(crate) fn claimed_until() -> Milliseconds {
    clock::now().saturating_add(clock::milliseconds(CLAIM))
}

/// The message that carries a task. User endpoints and direct endpoints have the same kind of queue.
pub(crate) fn task_message(entry: &OutboxEntry) -> Outgoing {
    let mut headers = FieldTable::default();
    let text = |text: String| AMQPValue::LongString(text.into());
    headers.insert(HEADER_FUNCTION.into(), text(entry.function_id.to_string()));
    headers.insert(HEADER_TASK.into(), text(entry.task_id.to_string()));
    if let Some(resources) = &entry.resource_specification {
        headers.insert(HEADER_RESOURCES.into(), text(resources.clone()));
    }
    if !entry.result_serializers.is_empty() {
        let list: Vec<AMQPValue> = entry.result_serializers.iter().cloned().map(text).collect();
        headers.insert(HEADER_SERIALIZERS.into(), AMQPValue::FieldArray(FieldArray::from(list)));
    }
    let mut task_buffer = String::with_capacity(entry.code.len() + entry.payload.len());
    task_buffer.push_str(&entry.code);
    task_buffer.push_str(&entry.payload);
    let body = encode(&Message::Task(Task {
        task_id: entry.task_id,
        container_id: None,
        container: None,
        task_buffer,
    }));
    Outgoing {
        queue: endpoint_queue(entry.endpoint_id, EndpointKind::User),
        body: body.into(),
        properties: persistent().with_headers(headers),
    }
}

/// Publishes tasks whose entries this replica has just written, and before them the command that starts their user
/// endpoint. Returns when the broker has confirmed them, or after [`CONFIRM_PATIENCE`]. What follows goes on without the
/// caller: that they are noted as sent, and all of it if the caller goes away, like a client that hangs up.
pub(crate) async fn hand_over(
    app: &Arc<App>,
    live: &Arc<Live>,
    command: Option<Outgoing>,
    submission: Arc<Submission>,
) {
    let (answered, answer) = oneshot::channel();
    app.handed_over.spawn({
        let (app, live) = (Arc::clone(app), Arc::clone(live));
        async move {
            app.metrics.start_commands.inc_by(u64::from(command.is_some()));
            let entries = &submission.entries;
            let starting = live.publisher.publish(command.as_slice());
            // Both are under way at once, in this order. A command that is lost is made good when the endpoint comes online.
            let publishing = publish(&app, &live, &live.publisher, entries, Some(answered));
            let (_, outcome) = tokio::join!(starting, publishing);
            let left = match outcome {
                Ok(unknown) => leave_to_sweep(&app, &unknown).await,
                Err(error) => Err(error),
            };
            if let Err(error) = left {
                tracing::warn!(%error, tasks = entries.len(), "tasks are accepted and will be published later");
            }
        }
    });
    // The sender goes away unused when the broker has answered.
    if tokio::time::timeout(CONFIRM_PATIENCE, answer).await.is_err() {
        tracing::warn!("the broker holds confirms back: tasks are accepted, and in doubt until it gives them");
    }
}

/// Ends the claims on tasks whose channel closed before the broker had answered: whoever has the next one may publish
/// them.
async fn leave_to_sweep(app: &App, unknown: &[Uuid]) -> Result<(), WorkError> {
    if !unknown.is_empty() {
        app.store.renew_claims(unknown, 0).await?;
        app.left_over.notify_one();
    }
    Ok(())
}

/// Publishes tasks, notes which of them the broker has confirmed, and returns those of which it said nothing before the
/// channel closed. Until it returns, the entries are claimed. `answered` is dropped when the broker has answered for all
/// of them.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed; the sweep will publish what is left.
async fn publish(
    app: &App,
    live: &Live,
    publisher: &Publisher,
    entries: &[OutboxEntry],
    answered: Option<oneshot::Sender<()>>,
) -> Result<Vec<Uuid>, WorkError> {
    // Both go on at once: a publish that is not polled while claims are renewed may have been given the one connection
    // that the renewal waits for.
    tokio::select! {
        outcome = publish_all(app, live, publisher, entries, answered) => outcome,
        never = keep_claimed(app, entries) => match never {},
    }
}

/// Goes on claiming entries; what is confirmed meanwhile has none.
async fn keep_claimed(app: &App, entries: &[OutboxEntry]) -> Infallible {
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.task_id).collect();
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = app.store.renew_claims(&ids, claimed_until()).await {
            tracing::warn!(%error, tasks = ids.len(), "tasks in doubt may be published twice: their claims can't be renewed");
        }
    }
}

async fn publish_all(
    app: &App,
    live: &Live,
    publisher: &Publisher,
    entries: &[OutboxEntry],
    mut answered: Option<oneshot::Sender<()>>,
) -> Result<Vec<Uuid>, WorkError> {
    let timer = app.metrics.publish_seconds.start_timer();
    let mut unknown = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(first_part(rest));
        let messages: Vec<Outgoing> = part.iter().map(task_message).collect();
        let outcomes = publisher.publish(&messages).await;
        if later.is_empty() {
            answered.take();
        }
        unknown.extend(note(app, live, part, outcomes).await?);
        rest = later;
    }
    timer.observe_duration();
    Ok(unknown)
}

/// How many of the entries are published at once: as many as make up [`PART_BYTES`], and at least one. Each message has
/// a copy of its function's code.
fn first_part(entries: &[OutboxEntry]) -> usize {
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += entry.code.len() + entry.payload.len();
        bytes <= PART_BYTES
    });
    fitting.count().max(1)
}

/// Notes what became of published entries, and returns those of which it is not known.
async fn note(
    app: &App,
    live: &Live,
    entries: &[OutboxEntry],
    outcomes: Vec<Published>,
) -> Result<Vec<Uuid>, WorkError> {
    let mut confirmed: Vec<Uuid> = Vec::with_capacity(entries.len());
    let mut unknown: Vec<Uuid> = Vec::new();
    let mut homeless: HashSet<Uuid> = HashSet::new();
    for (entry, outcome) in entries.iter().zip(outcomes) {
        match outcome {
            Published::Confirmed => confirmed.push(entry.task_id),
            Published::NoQueue => {
                homeless.insert(entry.endpoint_id);
            }
            Published::Unknown => unknown.push(entry.task_id),
            // The broker takes no more for now; the claim's end is the time to ask again.
            Published::Refused => {}
        }
    }
    let count = confirmed.len();
    // The broker has them: to leave their entries to anybody would publish them twice.
    while let Err(error) = app.store.settle_outbox(confirmed.clone(), clock::now()).await {
        tracing::error!(%error, tasks = count, "confirmed tasks can't be taken from the outbox; trying again");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    app.metrics.tasks_published.inc_by(count as u64);
    for id in homeless {
        restore_queue(app, live, id).await?;
    }
    Ok(unknown)
}

/// A task found no queue: the endpoint was deleted meanwhile, or somebody removed its queue from the broker.
async fn restore_queue(app: &App, live: &Live, id: Uuid) -> Result<(), WorkError> {
    match app.store.endpoint(id).await? {
        Some(endpoint) if endpoint.registration.kind == EndpointKind::Template => {
            user_endpoints::give_up_direct(app, id).await
        }
        Some(endpoint) => user_endpoints::ensure_queue(app, live, &endpoint).await,
        None => match app.store.revive_user_endpoint(id).await? {
            Some(endpoint) => user_endpoints::provision(app, live, &endpoint).await,
            None => user_endpoints::give_up_deleted(app, id).await,
        },
    }
}

/// Publishes left-over entries, until `stop`.
pub(crate) async fn sweep(app: Arc<App>, stop: CancellationToken) {
    let mut broker = app.broker.watch();
    loop {
        let live = broker.borrow_and_update().clone();
        if let Some(live) = live {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = pass(&app, &live) => outcome,
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "left-over tasks could not be published yet");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = broker.changed() => {}
            () = app.left_over.notified() => {}
            () = tokio::time::sleep(SWEEP_PERIOD) => {}
        }
    }
}

/// Publishes every entry that nobody claims, as long as the connection is good.
async fn pass(app: &App, live: &Live) -> Result<(), WorkError> {
    while live.is_open() {
        let now = clock::now();
        let entries = app.store.claim_outbox(now, claimed_until(), SWEEP_LIMIT).await?;
        if entries.is_empty() {
            return Ok(());
        }
        tracing::info!(
            tasks = entries.len(),
            "publishing tasks that were accepted and not confirmed"
        );
        app.metrics.outbox_recovered.inc_by(entries.len() as u64);
        // By a channel of its own: the broker closes it for a message that it does not take.
        let publisher = live.lone_publisher().await?;
        let unknown = publish(app, live, &publisher, &entries, None).await?;
        publisher.close().await;
        if live.is_open() {
            let left = entries.iter().filter(|entry| unknown.contains(&entry.task_id));
            publish_singly(app, live, left).await?;
        } else {
            leave_to_sweep(app, &unknown).await?;
        }
        let endpoints: HashSet<Uuid> = entries.iter().map(|entry| entry.endpoint_id).collect();
        let endpoints: Vec<Uuid> = endpoints.into_iter().collect();
        user_endpoints::send_start_commands(app, live, &endpoints).await?;
    }
    Ok(())
}

/// Publishes entries that are left of a batch for which the broker has closed the channel, each by a channel of its own:
/// one that it does not take gets an error, and is in the way of no other.
async fn publish_singly(app: &App, live: &Live, entries: impl Iterator<Item = &OutboxEntry>) -> Result<(), WorkError> {
    for entry in entries {
        let publisher = live.lone_publisher().await?;
        let unknown = publish(app, live, &publisher, std::slice::from_ref(entry), None).await?;
        publisher.close().await;
        if !unknown.is_empty() && live.is_open() {
            let reason = format!(
                "The service's message broker does not take this task, whose function and arguments have {} bytes: its own \
                 limit of a message's size (max_message_size) may be lower",
                entry.code.len() + entry.payload.len()
            );
            user_endpoints::give_up(app, &unknown, &reason).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(code: usize, payload: usize) -> OutboxEntry {
        OutboxEntry {
            task_id: Uuid::from_u128(1),
            endpoint_id: Uuid::from_u128(2),
            function_id: Uuid::from_u128(3),
            code: "c".repeat(code).into(),
            payload: "p".repeat(payload),
            resource_specification: None,
            result_serializers: Vec::new(),
        }
    }

    #[test]
    fn large_tasks_are_published_a_few_at_a_time() {
        let large = entry(PART_BYTES / 4, PART_BYTES / 4);
        assert_eq!(first_part(&[large.clone(), large.clone(), large.clone()]), 2);
        assert_eq!(first_part(&[entry(PART_BYTES, 1), large]), 1, "one at least");
        assert_eq!(first_part(&vec![entry(1, 1); 5_000]), 5_000);
    }

    #[test]
    fn a_task_buffer_is_the_code_followed_by_the_arguments() {
        let message = task_message(&entry(2, 1));
        let Ok(Message::Task(task)) = waypost_protocol::decode(&message.body) else {
            panic!("a task was made")
        };
        assert_eq!(task.task_buffer, "ccp");
        assert_eq!(message.queue, format!("{}.tasks", Uuid::from_u128(2)));
    }
}
