//! User endpoints: one per template endpoint, identity and `user_endpoint_config`.
//!
//! A template endpoint is told to start one by a command that carries the user endpoint's broker credentials. The
//! command is sent with every submit, and again when the template endpoint comes online or the user endpoint stops
//! while tasks wait: a command is good for three minutes only, and tasks wait for longer.

use serde_json::{Map, Value};
use uuid::Uuid;
use waypost_protocol::{
    Actor, Command, ErrorDetails, IdentityClaim, Message, START_ENDPOINT, StartArguments, State, StatusEntry,
    TaskResult, encode, error_code,
};

use crate::app::{App, WorkError};
use crate::broker::{BROKER_USER_FRESH, BrokerUser, Live, Outgoing, endpoint_queue, persistent, withdraw};
use crate::clock;
use crate::results::settle;
use crate::store::{Arrival, Client, Endpoint, EndpointKind, Registration, StoreError};

/// After so long upstream's endpoints refuse a command; the broker drops it then. In milliseconds.
const COMMAND_LIFE_MS: &str = "180000";

/// The id of a user endpoint: the same for equal submits, at every replica.
pub(crate) fn id_of(template: Uuid, identity: Uuid, user_config: &Map<String, Value>) -> Uuid {
    // A map's keys are sorted when it is written.
    let config = serde_json::to_string(user_config).unwrap_or_default();
    Uuid::new_v5(&template, format!("{identity}\n{config}").as_bytes())
}

/// The user endpoint of `client` for this configuration, made with its queue and broker user if it is new.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn obtain(
    app: &App,
    live: &Live,
    template: &Endpoint,
    client: &Client,
    user_config: &Map<String, Value>,
    user_runtime: &Map<String, Value>,
) -> Result<Endpoint, WorkError> {
    let id = id_of(template.id, client.id, user_config);
    let runtime = Value::Object(user_runtime.clone()).to_string();
    let known = app.store.endpoint(id).await?;
    if let Some(endpoint) = known
        && endpoint.has_broker_user()
        && endpoint.user_runtime.as_deref() == Some(&runtime)
    {
        renew(app, live, &endpoint).await?;
        return Ok(endpoint);
    }
    let now = clock::now();
    app.store
        .create_endpoint(&Endpoint {
            id,
            owner: client.id,
            parent: Some(template.id),
            registration: Registration {
                kind: EndpointKind::User,
                name: format!("uep.{}.{id}", template.id),
                display_name: None,
                public: false,
                multi_user: false,
                metadata: "{}".to_owned(),
                allowed_functions: None,
                admins: Vec::new(),
                properties: "{}".to_owned(),
            },
            user_config: Some(Value::Object(user_config.clone()).to_string()),
            user_runtime: Some(runtime),
            registered_at: now,
            locked_until: 0,
            heartbeat_at: 0,
            heartbeat_period_ms: 0,
            report: None,
            rotation: 0,
            broker_user_at: 0,
        })
        .await?;
    let endpoint = app
        .store
        .endpoint(id)
        .await?
        .ok_or(StoreError::Database(sqlx::Error::RowNotFound))?;
    provision(app, live, &endpoint).await?;
    Ok(endpoint)
}

/// Makes an endpoint's queue and broker user, or renews them.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn provision(app: &App, live: &Live, endpoint: &Endpoint) -> Result<(), WorkError> {
    ensure_queue(app, live, endpoint).await?;
    let user = BrokerUser::Endpoint(endpoint.id, endpoint.registration.kind);
    app.broker.put_user(&user, endpoint.rotation).await?;
    app.store.set_endpoint_broker_user(endpoint.id, clock::now()).await?;
    Ok(())
}

/// Makes an endpoint's queue if it is not there, and sees to it that what the broker had in one before is published.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn ensure_queue(app: &App, live: &Live, endpoint: &Endpoint) -> Result<(), WorkError> {
    let queue = endpoint_queue(endpoint.id, endpoint.registration.kind);
    if live.is_idle(&queue).await?.is_none() {
        // First: once the queue is there nobody can tell that it is another. What is published too early comes here again.
        let tasks = app.store.publish_again(endpoint.id).await?;
        if tasks > 0 {
            tracing::warn!(endpoint_id = %endpoint.id, tasks, "the broker has lost the endpoint's queue; its tasks are published again");
            app.left_over.notify_one();
        }
    }
    Ok(live.declare_endpoint_queue(endpoint).await?)
}

/// Brings a user endpoint's queue and broker user back to what they must be, before it is told to start: somebody may
/// have changed the password or removed the user. One that is online has just used it, and one that was renewed a moment
/// ago is left alone.
async fn renew(app: &App, live: &Live, endpoint: &Endpoint) -> Result<(), WorkError> {
    let now = clock::now();
    if !endpoint.is_online(now) && now.saturating_sub(endpoint.broker_user_at) > BROKER_USER_FRESH {
        provision(app, live, endpoint).await?;
    }
    Ok(())
}

fn object(text: Option<&str>) -> Option<Map<String, Value>> {
    serde_json::from_str(text?).ok()
}

/// The command that starts a user endpoint of `client`, or renews its credentials.
pub(crate) fn start_command(app: &App, template: Uuid, endpoint: &Endpoint, client: &Client) -> Outgoing {
    let command = Command {
        command: START_ENDPOINT.to_owned(),
        args: Vec::new(),
        kwargs: StartArguments {
            name: format!("uep.{template}.{}", endpoint.id),
            user_opts: object(endpoint.user_config.as_deref()),
            user_runtime: object(endpoint.user_runtime.as_deref()),
            amqp_creds: app.broker.endpoint_credentials(endpoint),
        },
        globus_effective_identity: client.id,
        globus_username: client.username(),
        globus_identity_set: vec![IdentityClaim { sub: client.id }],
    };
    let seconds = u64::try_from(clock::now() / 1000).unwrap_or_default();
    Outgoing {
        queue: endpoint_queue(template, EndpointKind::Template),
        body: serde_json::to_vec(&command).unwrap_or_default().into(),
        properties: persistent()
            .with_content_type("application/json".into())
            .with_timestamp(seconds)
            .with_expiration(COMMAND_LIFE_MS.into()),
    }
}

/// Sends the start commands of these user endpoints.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn send_start_commands(app: &App, live: &Live, user_endpoints: &[Uuid]) -> Result<(), WorkError> {
    let mut commands = Vec::new();
    for endpoint in app.store.endpoints(user_endpoints).await?.into_values() {
        let Some(template) = endpoint.parent else { continue };
        let Some(client) = app.store.client(endpoint.owner).await? else {
            continue;
        };
        if client.revoked_at.is_none() {
            renew(app, live, &endpoint).await?;
            commands.push(start_command(app, template, &endpoint, &client));
        }
    }
    // One that is not confirmed is made good when the endpoint comes online, or by housekeeping.
    let outcomes = live.publisher.publish(&commands).await;
    app.metrics.start_commands.inc_by(outcomes.len() as u64);
    Ok(())
}

/// An endpoint came online: if it is a template endpoint, its user endpoints with waiting tasks are to be started.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn announce_work(app: &App, id: Uuid) -> Result<(), WorkError> {
    let waiting = app.store.user_endpoints_with_work(id).await?;
    if !waiting.is_empty() {
        tracing::info!(endpoint_id = %id, user_endpoints = waiting.len(), "sending start commands again: tasks wait");
        send_start_commands(app, &*app.broker.live()?, &waiting).await?;
    }
    Ok(())
}

/// An endpoint stopped. A user endpoint that tasks came for at that very moment is started again.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn stopped(app: &App, id: Uuid) -> Result<(), WorkError> {
    let Some(endpoint) = app.store.endpoint(id).await? else {
        return Ok(());
    };
    let Some(parent) = endpoint.parent else { return Ok(()) };
    let parent_is_online = app
        .store
        .endpoint(parent)
        .await?
        .is_some_and(|parent| parent.is_online(clock::now()));
    if parent_is_online && !app.store.unfinished_tasks(id).await?.is_empty() {
        send_start_commands(app, &*app.broker.live()?, &[id]).await?;
    }
    Ok(())
}

/// A user endpoint could not be started: its tasks get an error that says why.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn could_not_start(app: &App, id: Uuid, reason: &str) -> Result<(), WorkError> {
    let Some(endpoint) = app.store.endpoint(id).await? else {
        return Ok(());
    };
    if endpoint.registration.kind != EndpointKind::User {
        // Upstream reports a failed start a second time under the template endpoint's own id.
        return Ok(());
    }
    fail_unfinished(app, &endpoint, reason).await
}

/// An endpoint is deleted: its tasks get an error.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn give_up_deleted(app: &App, id: Uuid) -> Result<(), WorkError> {
    let tasks = app.store.unfinished_tasks(id).await?;
    let reason = format!("Endpoint {id} was deleted before this task had a result");
    give_up(app, &tasks, &reason).await
}

/// An endpoint becomes one of the other kind, and reads other queues: what waits in the former ones gets an error.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn give_up_former(app: &App, known: &Endpoint) -> Result<(), WorkError> {
    let former = if known.registration.kind == EndpointKind::Template {
        app.store.user_endpoints(known.id).await?
    } else {
        vec![known.clone()]
    };
    for endpoint in former {
        fail_unfinished(app, &endpoint, &of_another_kind(known.id)).await?;
    }
    Ok(())
}

/// Tasks were sent to an endpoint when it was a direct one, and it is a template endpoint now: they get an error.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn give_up_direct(app: &App, id: Uuid) -> Result<(), WorkError> {
    let tasks = app.store.unfinished_tasks(id).await?;
    give_up(app, &tasks, &of_another_kind(id)).await
}

fn of_another_kind(id: Uuid) -> String {
    format!("Endpoint {id} was registered as another kind of endpoint before this task had a result; submit it again")
}

/// Gives these tasks an error.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn give_up(app: &App, tasks: &[Uuid], reason: &str) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let arrivals = tasks.iter().map(|task| failure(*task, reason)).collect();
    settle(app, &live, arrivals).await?;
    Ok(app.store.settle_outbox(tasks.to_vec(), clock::now()).await?)
}

/// Gives every task of an endpoint that has no result an error, and takes it from the endpoint's queue.
///
/// # Errors
/// [`WorkError`]: the store or the broker failed.
pub(crate) async fn fail_unfinished(app: &App, endpoint: &Endpoint, reason: &str) -> Result<(), WorkError> {
    let live = app.broker.live()?;
    let tasks = app.store.unfinished_tasks(endpoint.id).await?;
    if tasks.is_empty() {
        return Ok(());
    }
    tracing::warn!(endpoint_id = %endpoint.id, tasks = tasks.len(), reason, "giving up tasks");
    give_up(app, &tasks, reason).await?;
    Ok(withdraw(&live, &endpoint_queue(endpoint.id, endpoint.registration.kind), &tasks).await?)
}

/// Of a reason so many bytes are told: an endpoint may name any, and each of its tasks gets it twice.
const REASON_MAX: usize = 16 << 10;

/// The result of a task that the service itself gives up.
fn failure(task_id: Uuid, reason: &str) -> Arrival {
    let reason = &reason[..reason.floor_char_boundary(REASON_MAX)];
    let now = clock::now();
    let body = encode(&Message::Result(TaskResult {
        task_id,
        data: reason.to_owned(),
        details: None,
        error_details: Some(ErrorDetails {
            code: error_code::UNKNOWN.to_owned(),
            user_message: reason.to_owned(),
        }),
        task_statuses: vec![StatusEntry {
            timestamp: now.saturating_mul(1_000_000),
            state: State::Failed,
            actor: Actor::WebService,
        }],
    }));
    Arrival {
        task_id,
        sender: None,
        body: body.into(),
        failed: true,
        started_at: None,
        ended_at: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn equal_configurations_share_a_user_endpoint_whatever_their_order() {
        let (template, identity) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let one: Map<String, Value> = serde_json::from_str(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#).unwrap();
        let other: Map<String, Value> = serde_json::from_str(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#).unwrap();
        assert_eq!(id_of(template, identity, &one), id_of(template, identity, &other));
        assert_ne!(
            id_of(template, identity, &one),
            id_of(template, identity, &config(json!({"a": 2})))
        );
        assert_ne!(
            id_of(template, identity, &one),
            id_of(template, Uuid::from_u128(3), &one)
        );
        assert_ne!(
            id_of(template, identity, &one),
            id_of(Uuid::from_u128(3), identity, &one)
        );
    }
}
