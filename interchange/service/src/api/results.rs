//! Tasks and their results, for clients that ask over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use waypost_protocol::{Message, decode};

use super::extract::{JsonBody, PathId};
use super::submit::renew_group;
use crate::app::App;
use crate::auth::Identity;
use crate::clock;
use crate::error::{ApiError, ErrorCode};
use crate::store::{TaskRecord, TaskState};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/tasks/{id}", get(task))
        .route("/v2/batch_status", post(batch_status))
        .route("/v2/taskgroup/{id}", get(task_group))
}

/// The most tasks that may be asked for in one call.
const MAX_TASKS_PER_CALL: usize = 10_000;

/// A task as its client reads it.
fn describe(task: &TaskRecord) -> Value {
    let mut fields = Map::new();
    fields.insert("task_id".to_owned(), json!(task.id));
    fields.insert("status".to_owned(), json!(task.state.as_str()));
    fields.insert("task_group_id".to_owned(), json!(task.group_id));
    fields.insert("endpoint_id".to_owned(), json!(task.target_id));
    fields.insert("function_id".to_owned(), json!(task.function_id));
    if task.endpoint_id != task.target_id {
        fields.insert("user_endpoint_id".to_owned(), json!(task.endpoint_id));
    }
    let times = [
        ("received_t", Some(task.received_at)),
        ("sent_t", task.sent_at),
        ("started_t", task.started_at),
        ("ended_t", task.ended_at),
        ("completion_t", task.finished_at),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            fields.insert(name.to_owned(), json!(clock::as_seconds(time)));
        }
    }
    if matches!(task.state, TaskState::Success | TaskState::Failed) {
        match task.result.as_deref().map(decode) {
            Some(Ok(Message::Result(result))) => {
                let field = if result.error_details.is_some() {
                    "exception"
                } else {
                    "result"
                };
                fields.insert(field.to_owned(), Value::String(result.data));
                if let Some(details) = result.details {
                    fields.insert("details".to_owned(), details);
                }
                if let Some(error) = result.error_details {
                    fields.insert("error_details".to_owned(), json!(error));
                }
                fields.insert("task_statuses".to_owned(), json!(result.task_statuses));
            }
            Some(_) | None => {
                fields.insert("reason".to_owned(), json!("its result is no longer kept"));
            }
        }
    }
    Value::Object(fields)
}

fn not_found(id: Uuid) -> ApiError {
    ApiError::new(ErrorCode::TaskNotFound, format!("Task {id} could not be resolved"))
}

async fn task(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    let task = app
        .store
        .tasks(&[id], true)
        .await?
        .remove(&id)
        .filter(|task| task.owner == client.id)
        .ok_or_else(|| not_found(id))?;
    if task.result.is_some() {
        app.store.mark_fetched(&[id], clock::now()).await?;
    }
    Ok(Json(describe(&task)))
}

#[derive(Deserialize)]
struct BatchBody {
    task_ids: Vec<Uuid>,
}

async fn batch_status(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    JsonBody(body): JsonBody<BatchBody>,
) -> Result<Json<Value>, ApiError> {
    if body.task_ids.len() > MAX_TASKS_PER_CALL {
        return Err(ApiError::field(
            ErrorCode::RequestInvalid,
            "task_ids",
            format!(
                "there are {}, and {MAX_TASKS_PER_CALL} are allowed in one call",
                body.task_ids.len()
            ),
        ));
    }
    let mut known = app.store.tasks(&body.task_ids, true).await?;
    known.retain(|_, task| task.owner == client.id);
    let fetched: Vec<Uuid> = known
        .values()
        .filter(|task| task.result.is_some())
        .map(|task| task.id)
        .collect();
    app.store.mark_fetched(&fetched, clock::now()).await?;
    let results: Map<String, Value> = body
        .task_ids
        .iter()
        .map(|id| {
            let status = known.get(id).map_or_else(
                || json!({"task_id": id, "status": "failed", "reason": "unknown task id"}),
                describe,
            );
            (id.to_string(), status)
        })
        .collect();
    Ok(Json(json!({"response": "batch", "results": results})))
}

/// The tasks of a group. Who asks for them is about to wait for their results, so the queue is made again if it is gone.
async fn task_group(
    State(app): State<Arc<App>>,
    Identity(client): Identity,
    PathId(id): PathId,
) -> Result<Json<Value>, ApiError> {
    renew_group(&app, &*app.broker.live()?, id, &client, true).await?;
    let tasks: Vec<Value> = app
        .store
        .group_tasks(id)
        .await?
        .into_iter()
        .map(|task| json!({"id": task}))
        .collect();
    Ok(Json(json!({"taskgroup_id": id, "tasks": tasks})))
}
