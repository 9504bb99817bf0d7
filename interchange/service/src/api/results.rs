//! Tasks and their results, for clients that ask over HTTP.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt as _, TryStreamExt as _};
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
use crate::store::{StoreError, TaskRecord, TaskState};

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/tasks/{id}", get(task))
        .route("/v2/batch_status", post(batch_status))
        .route("/v2/taskgroup/{id}", get(task_group))
}

/// The most tasks that may be asked for in one call.
const MAX_TASKS_PER_CALL: usize = 10_000;

/// So many bytes of results are in memory for one call: they are read as its client takes them.
const PART_BYTES: usize = 8 << 20;

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
) -> Result<Response, ApiError> {
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
    let mut seen = HashSet::with_capacity(body.task_ids.len());
    let ids: Vec<Uuid> = body.task_ids.into_iter().filter(|id| seen.insert(*id)).collect();
    let sizes = app.store.result_sizes(&ids).await?;
    let parts = parts(&ids, &sizes);
    let tasks = futures_util::stream::iter(parts).then(move |part| {
        let app = Arc::clone(&app);
        async move { batch_part(&app, client.id, &part).await }
    });
    let head = futures_util::stream::iter([Ok(r#"{"response":"batch","results":{"#.to_owned())]);
    let end = futures_util::stream::iter([Ok("}}".to_owned())]);
    let mut is_first = true;
    let tasks = tasks.map_ok(move |text| {
        if std::mem::take(&mut is_first) {
            text
        } else {
            format!(",{text}")
        }
    });
    let body = Body::from_stream(head.chain(tasks).chain(end));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Splits tasks in such a way that the results of a part together have no more than [`PART_BYTES`], unless it is one.
fn parts(ids: &[Uuid], sizes: &HashMap<Uuid, usize>) -> Vec<Vec<Uuid>> {
    let mut parts: Vec<Vec<Uuid>> = Vec::new();
    let mut bytes = 0;
    for id in ids {
        let size = sizes.get(id).copied().unwrap_or_default();
        match parts.last_mut() {
            Some(part) if bytes + size <= PART_BYTES => part.push(*id),
            Some(_) | None => {
                parts.push(vec![*id]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts
}

/// Some tasks of a batch, as the fields of a JSON object.
///
/// # Errors
/// [`StoreError`]: the answer is broken off, and its client asks again.
async fn batch_part(app: &App, client: Uuid, ids: &[Uuid]) -> Result<String, StoreError> {
    let mut known = app.store.tasks(ids, true).await?;
    known.retain(|_, task| task.owner == client);
    let fetched: Vec<Uuid> = known
        .values()
        .filter(|task| task.result.is_some())
        .map(|task| task.id)
        .collect();
    app.store.mark_fetched(&fetched, clock::now()).await?;
    let mut text = String::new();
    for id in ids {
        let status = known.get(id).map_or_else(
            || json!({"task_id": id, "status": "failed", "reason": "unknown task id"}),
            describe,
        );
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, r#"{comma}"{id}":{status}"#);
    }
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_are_read_a_few_at_a_time() {
        let ids: Vec<Uuid> = (1..=6).map(Uuid::from_u128).collect();
        let sizes = [1, PART_BYTES - 1, 1, PART_BYTES + 5, 2].into_iter().enumerate();
        let sizes: HashMap<Uuid, usize> = sizes.map(|(index, size)| (ids[index], size)).collect();
        let lengths: Vec<usize> = parts(&ids, &sizes).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 2], "the last has no result");
        assert_eq!(parts(&ids, &HashMap::new()).len(), 1);
        assert!(parts(&[], &sizes).is_empty());
    }
}
