//! Submit: tasks into the store and onto their endpoint's queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::extract::{JsonBody, PathId, parse_id};
use super::functions;
use crate::app::App;
use crate::auth::Identity;
use crate::broker::{BODY_MAX, HEADERS_MAX, Live, result_queue};
use crate::error::{ApiError, ErrorCode};
use crate::store::{Client, Endpoint, EndpointKind, Function, OutboxEntry, Submission};
use crate::{clock, outbox, user_endpoints};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v3/endpoints/{id}/submit", post(submit))
}

/// A result queue that was declared so recently is not declared again, and even more so if unused queues expire soon.
fn queue_freshness(app: &App) -> i64 {
    clock::milliseconds(app.settings.result_queue_expiry / 4).min(15_000)
}

#[derive(Deserialize)]
struct Body {
    tasks: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    create_queue: bool,
    task_group_id: Option<Uuid>,
    resource_specification: Option<Map<String, Value>>,
    user_endpoint_config: Option<Map<String, Value>>,
    user_runtime: Option<Map<String, Value>>,
    result_serializers: Option<Vec<String>>,
}

async fn submit(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(endpoint_id): PathId,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    let target = app
        .store
        .endpoint(endpoint_id)
        .await?
        .filter(|endpoint| endpoint.registration.kind != EndpointKind::User)
        .ok_or_else(|| ApiError::endpoint_not_found(endpoint_id))?;
    let tasks = checked(&app, body.tasks)?;
    let user_config = body.user_endpoint_config.unwrap_or_default();
    let user_runtime = body.user_runtime.unwrap_or_default();
    // The start command has both, and some hundred bytes beside them.
    check_length(
        "user_endpoint_config",
        json_length(&user_config) + json_length(&user_runtime),
        BODY_MAX / 2,
    )?;
    let resource_specification = body
        .resource_specification
        .filter(|specification| !specification.is_empty())
        .map(|specification| Value::Object(specification).to_string());
    let result_serializers = body.result_serializers.unwrap_or_default();
    let specified = resource_specification.as_deref().map_or(0, str::len);
    check_length("resource_specification", specified, HEADERS_MAX)?;
    // In the header each has its length before it.
    let listed: usize = result_serializers.iter().map(|name| name.len() + 5).sum();
    check_length("result_serializers", specified + listed, HEADERS_MAX)?;
    let functions = check_functions(&app, &target, &client, &tasks).await?;
    check_bodies(&tasks, &functions)?;
    let live = app.broker.live()?;

    let (group_id, new_group) = match body.task_group_id {
        Some(id) => {
            renew_group(&app, &live, id, &client, body.create_queue).await?;
            (id, None)
        }
        None => {
            // Nobody knows this group: if its tasks are not accepted after all, the broker removes the queue unused.
            let id = Uuid::new_v4();
            if body.create_queue {
                live.declare_result_queue(&result_queue(client.id, id)).await?;
            }
            (id, Some(if body.create_queue { clock::now() } else { 0 }))
        }
    };

    let mut command = None;
    let endpoint = if target.registration.kind == EndpointKind::Template {
        let endpoint = user_endpoints::obtain(&app, &live, &target, &client, &user_config, &user_runtime).await?;
        command = Some(user_endpoints::start_command(&app, target.id, &endpoint, &client));
        endpoint.id
    } else {
        target.id
    };

    let codes: HashMap<Uuid, Arc<str>> = functions
        .into_iter()
        .map(|(id, function)| (id, Arc::from(function.code)))
        .collect();
    let mut ids: HashMap<Uuid, Vec<Uuid>> = HashMap::with_capacity(codes.len());
    let mut entries = Vec::with_capacity(tasks.len());
    for (function_id, payload) in tasks {
        let task_id = Uuid::new_v4();
        ids.entry(function_id).or_default().push(task_id);
        entries.push(OutboxEntry {
            task_id,
            endpoint_id: endpoint,
            function_id,
            code: codes.get(&function_id).cloned().unwrap_or_default(),
            payload,
            resource_specification: resource_specification.clone(),
            result_serializers: result_serializers.clone(),
        });
    }
    let count = entries.len();
    let submission = Arc::new(Submission {
        group_id,
        new_group,
        owner: client.id,
        target_id: target.id,
        received_at: clock::now(),
        claimed_until: outbox::claimed_until(),
        entries,
    });
    app.store.submit(Arc::clone(&submission)).await?;
    app.metrics.tasks_submitted.inc_by(count as u64);
    tracing::debug!(endpoint_id = %endpoint, task_group_id = %group_id, tasks = count, "tasks accepted");
    outbox::hand_over(&app, &live, command, submission).await;
    Ok(Json(json!({
        "tasks": ids,
        "task_group_id": group_id,
        "request_id": Uuid::new_v4(),
        "endpoint_id": target.id,
    })))
}

/// The tasks as function and packed arguments, after their size and number are checked.
fn checked(app: &App, tasks: BTreeMap<String, Vec<String>>) -> Result<Vec<(Uuid, String)>, ApiError> {
    let count: usize = tasks.values().map(Vec::len).sum();
    if count == 0 {
        return Err(ApiError::field(ErrorCode::RequestInvalid, "tasks", "there are none"));
    }
    if count > app.settings.max_tasks_per_submit {
        return Err(ApiError::field(
            ErrorCode::RequestInvalid,
            "tasks",
            format!(
                "there are {count}, and {} are allowed in one call",
                app.settings.max_tasks_per_submit
            ),
        ));
    }
    let mut new = Vec::with_capacity(count);
    for (function, payloads) in tasks {
        let function_id = parse_id(&format!("tasks.{function}"), &function)?;
        for (index, payload) in payloads.into_iter().enumerate() {
            if payload.len() > app.settings.max_payload_bytes {
                return Err(ApiError::field(
                    ErrorCode::PayloadTooLarge,
                    format!("tasks.{function}[{index}]"),
                    format!(
                        "the arguments have {} bytes, and {} are allowed",
                        payload.len(),
                        app.settings.max_payload_bytes
                    ),
                ));
            }
            new.push((function_id, payload));
        }
    }
    Ok(new)
}

/// Refuses what has more bytes than a message of the broker may have.
fn check_length(field: &str, bytes: usize, allowed: usize) -> Result<(), ApiError> {
    if bytes <= allowed {
        return Ok(());
    }
    Err(ApiError::field(
        ErrorCode::PayloadTooLarge,
        field,
        format!("it has {bytes} bytes, and {allowed} are allowed"),
    ))
}

/// How many bytes a value has in JSON.
fn json_length<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither text nor maps by text can fail to be written.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Refuses tasks whose arguments and function together are more than a message may have.
fn check_bodies(tasks: &[(Uuid, String)], functions: &HashMap<Uuid, Function>) -> Result<(), ApiError> {
    /// A character of text is no more than six bytes of JSON.
    const WIDEST: usize = 6;
    /// What stands beside both in a task's message.
    const FRAME: usize = 256;
    for (function, payload) in tasks {
        let code = functions.get(function).map_or("", |function| &function.code);
        if (code.len() + payload.len()) * WIDEST + FRAME > BODY_MAX {
            let bytes = json_length(code) + json_length(payload) + FRAME;
            if bytes > BODY_MAX {
                return Err(ApiError::field(
                    ErrorCode::PayloadTooLarge,
                    format!("tasks.{function}"),
                    format!("arguments and function make a message of {bytes} bytes, and {BODY_MAX} are allowed"),
                ));
            }
        }
    }
    Ok(())
}

/// Whether this client may run these functions there.
async fn check_functions(
    app: &App,
    target: &Endpoint,
    client: &Client,
    tasks: &[(Uuid, String)],
) -> Result<HashMap<Uuid, Function>, ApiError> {
    let is_manager = target.is_managed_by(client.id);
    // A public endpoint that takes tasks itself runs them as its owner, so others may only run what it lists.
    let is_usable = is_manager
        || target.registration.public
            && (target.registration.kind == EndpointKind::Template || target.registration.allowed_functions.is_some());
    if !is_usable {
        return Err(ApiError::endpoint_forbidden(target.id));
    }
    let mut wanted: Vec<Uuid> = tasks.iter().map(|(function, _)| *function).collect();
    wanted.dedup();
    let functions = app.store.functions(&wanted).await?;
    for id in wanted {
        let function = functions.get(&id).ok_or_else(|| ApiError::function_not_found(id))?;
        let listed = target.registration.allowed_functions.is_some() && target.allows(id);
        // An endpoint's list shares the functions of its own owner, not other people's.
        let is_shared = function.public || (listed && function.owner == target.owner);
        if function.owner != client.id && !is_shared {
            return Err(functions::forbidden(id));
        }
        if !target.allows(id) {
            return Err(ApiError::new(
                ErrorCode::FunctionNotPermitted,
                format!("Function {id} not permitted on endpoint {}", target.id),
            ));
        }
    }
    Ok(functions)
}

/// Checks that a task group is the client's, and sees that its result queue is there if one is wanted.
pub(super) async fn renew_group(
    app: &App,
    live: &Live,
    id: Uuid,
    client: &Client,
    queue: bool,
) -> Result<(), ApiError> {
    let now = clock::now();
    let group = app.store.group(id).await?.ok_or_else(|| {
        ApiError::new(
            ErrorCode::TaskGroupNotFound,
            format!("Task group {id} could not be resolved"),
        )
    })?;
    if group.owner != client.id {
        return Err(ApiError::new(
            ErrorCode::TaskGroupAccessForbidden,
            format!("Unauthorized access to task group {id}"),
        ));
    }
    let is_fresh =
        group.queue_idle_since.is_none() && (!queue || now.saturating_sub(group.queue_at) < queue_freshness(app));
    if !is_fresh {
        app.store.use_group(id, if queue { now } else { 0 }).await?;
        if queue {
            live.declare_result_queue(&result_queue(client.id, id)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_json_is_counted_as_it_is_written() {
        for text in ["", "plain", "line\nline", "\u{1}\"\\", "é"] {
            assert_eq!(json_length(text), serde_json::to_string(text).unwrap().len());
        }
    }

    #[test]
    fn a_task_that_makes_too_large_a_message_is_refused() {
        let id = Uuid::from_u128(1);
        let function = |bytes| Function {
            id,
            owner: id,
            name: String::new(),
            description: None,
            code: "c".repeat(bytes),
            metadata: String::new(),
            public: false,
            created_at: 0,
        };
        let functions = |bytes| HashMap::from([(id, function(bytes))]);
        let tasks = [(id, "p".repeat(BODY_MAX / 2))];
        assert!(check_bodies(&tasks, &functions(BODY_MAX / 2 - 1_000)).is_ok());
        assert!(check_bodies(&tasks, &functions(BODY_MAX / 2)).is_err());
        // In JSON it has twice the bytes.
        assert!(check_bodies(&[(id, "\n".repeat(BODY_MAX / 2))], &functions(1)).is_err());
    }
}
