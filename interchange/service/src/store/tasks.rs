use std::collections::HashMap;

use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::{ROWS_PER_STATEMENT, Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// Where a task is. The names are those of globus-compute-common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Accepted, and not yet confirmed by the broker.
    Received,
    /// On its endpoint's queue, or taken from it.
    WaitingForEndpoint,
    /// Its function is being called, as its endpoint reported.
    Running,
    /// It has a value.
    Success,
    /// It has an error.
    Failed,
}

impl TaskState {
    /// The name that clients know.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::WaitingForEndpoint => "waiting-for-ep",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [
            Self::Received,
            Self::WaitingForEndpoint,
            Self::Running,
            Self::Success,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| StoreError::Unreadable {
            what: "tasks.state",
            value: text.to_owned(),
        })
    }
}

/// One task of a submit.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) id: Uuid,
    pub(crate) function_id: Uuid,
    /// The packed arguments.
    pub(crate) payload: String,
}

/// What all tasks of a submit have in common.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) group_id: Uuid,
    pub(crate) owner: Uuid,
    /// The endpoint that the client named.
    pub(crate) target_id: Uuid,
    /// The endpoint whose queue the tasks go to.
    pub(crate) endpoint_id: Uuid,
    /// As JSON text.
    pub(crate) resource_specification: Option<String>,
    /// Import paths.
    pub(crate) result_serializers: Vec<String>,
    pub(crate) received_at: Milliseconds,
    /// Until then this replica publishes them.
    pub(crate) claimed_until: Milliseconds,
}

/// A task as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct TaskRecord {
    pub(crate) id: Uuid,
    pub(crate) group_id: Uuid,
    pub(crate) owner: Uuid,
    pub(crate) target_id: Uuid,
    pub(crate) endpoint_id: Uuid,
    pub(crate) function_id: Uuid,
    pub(crate) state: TaskState,
    pub(crate) received_at: Milliseconds,
    /// When the broker had it.
    pub(crate) sent_at: Option<Milliseconds>,
    /// When its function was called, by the worker's clock.
    pub(crate) started_at: Option<Milliseconds>,
    /// When its function returned, by the worker's clock.
    pub(crate) ended_at: Option<Milliseconds>,
    /// When its result came.
    pub(crate) finished_at: Option<Milliseconds>,
    /// Its result's message, if it was asked for and is there.
    pub(crate) result: Option<Vec<u8>>,
}

macro_rules! task_of {
    ($row:expr) => {
        TaskRecord {
            id: $row.try_get("id")?,
            group_id: $row.try_get("group_id")?,
            owner: $row.try_get("owner")?,
            target_id: $row.try_get("target_id")?,
            endpoint_id: $row.try_get("endpoint_id")?,
            function_id: $row.try_get("function_id")?,
            state: TaskState::parse($row.try_get("state")?)?,
            received_at: $row.try_get("received_at")?,
            sent_at: $row.try_get("sent_at")?,
            started_at: $row.try_get("started_at")?,
            ended_at: $row.try_get("ended_at")?,
            finished_at: $row.try_get("finished_at")?,
            result: $row.try_get("body")?,
        }
    };
}

impl Store {
    /// Accepts tasks: they and their outbox entries are written together or not at all.
    pub(crate) async fn submit(&self, submission: &Submission, tasks: &[NewTask]) -> Result<(), StoreError> {
        let serializers = (!submission.result_serializers.is_empty())
            .then(|| serde_json::Value::from(submission.result_serializers.clone()).to_string());
        transaction!(self, tx => {
            for tasks in tasks.chunks(ROWS_PER_STATEMENT) {
                let mut query = QueryBuilder::new(
                    "INSERT INTO tasks (id, group_id, owner, target_id, endpoint_id, function_id, state, received_at) ",
                );
                query.push_values(tasks, |mut row, task| {
                    row.push_bind(task.id)
                        .push_bind(submission.group_id)
                        .push_bind(submission.owner)
                        .push_bind(submission.target_id)
                        .push_bind(submission.endpoint_id)
                        .push_bind(task.function_id)
                        .push_bind(TaskState::Received.as_str())
                        .push_bind(submission.received_at);
                });
                query.build().execute(&mut *tx).await?;
                let mut query = QueryBuilder::new(
                    "INSERT INTO outbox (task_id, endpoint_id, function_id, payload, resource_specification,
                        result_serializers, claimed_until) ",
                );
                query.push_values(tasks, |mut row, task| {
                    row.push_bind(task.id)
                        .push_bind(submission.endpoint_id)
                        .push_bind(task.function_id)
                        .push_bind(task.payload.as_str())
                        .push_bind(submission.resource_specification.as_deref())
                        .push_bind(serializers.as_deref())
                        .push_bind(submission.claimed_until);
                });
                query.build().execute(&mut *tx).await?;
            }
        });
        Ok(())
    }

    /// Those of `ids` that exist, with their results if `with_results` is set.
    pub(crate) async fn tasks(
        &self,
        ids: &[Uuid],
        with_results: bool,
    ) -> Result<HashMap<Uuid, TaskRecord>, StoreError> {
        let select = if with_results {
            "SELECT tasks.*, results.body FROM tasks LEFT JOIN results ON results.task_id = tasks.id WHERE tasks.id IN ("
        } else {
            "SELECT tasks.*, NULL AS body FROM tasks WHERE tasks.id IN ("
        };
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(ROWS_PER_STATEMENT) {
            reading!(self, pool => {
                let mut query = QueryBuilder::new(select);
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                query.push(")");
                for row in query.build().fetch_all(pool).await? {
                    let task = task_of!(row);
                    found.insert(task.id, task);
                }
            });
        }
        Ok(found)
    }

    /// The ids of a group's tasks, in the order of their submits.
    pub(crate) async fn group_tasks(&self, group: Uuid) -> Result<Vec<Uuid>, StoreError> {
        reading!(self, pool => Ok(sqlx::query_scalar(
            "SELECT id FROM tasks WHERE group_id = $1 ORDER BY received_at, id",
        )
        .bind(group)
        .fetch_all(pool)
        .await?))
    }

    /// Notes that a client has read these tasks' results.
    pub(crate) async fn mark_fetched(&self, ids: &[Uuid], now: Milliseconds) -> Result<(), StoreError> {
        for ids in ids.chunks(ROWS_PER_STATEMENT) {
            transaction!(self, tx => {
                let mut query = QueryBuilder::new("UPDATE tasks SET fetched_at = ");
                query.push_bind(now).push(" WHERE fetched_at IS NULL AND id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                query.push(")");
                query.build().execute(&mut *tx).await?;
            });
        }
        Ok(())
    }

    /// The ids of the tasks that were sent to this endpoint and have no result.
    pub(crate) async fn unfinished_tasks(&self, endpoint: Uuid) -> Result<Vec<Uuid>, StoreError> {
        reading!(self, pool => Ok(sqlx::query_scalar(
            "SELECT id FROM tasks WHERE endpoint_id = $1 AND finished_at IS NULL ORDER BY received_at, id",
        )
        .bind(endpoint)
        .fetch_all(pool)
        .await?))
    }

    /// The user endpoints of `parent` that have tasks without a result.
    pub(crate) async fn user_endpoints_with_work(&self, parent: Uuid) -> Result<Vec<Uuid>, StoreError> {
        reading!(self, pool => Ok(sqlx::query_scalar(
            "SELECT id FROM endpoints WHERE parent = $1 AND deleted_at IS NULL
             AND EXISTS (SELECT 1 FROM tasks WHERE tasks.endpoint_id = endpoints.id AND tasks.finished_at IS NULL)",
        )
        .bind(parent)
        .fetch_all(pool)
        .await?))
    }

    /// Deletes up to `limit` tasks, with their results, that ended before `ended_before` and were read, or that were
    /// accepted before `received_before`; how many.
    pub(crate) async fn delete_old_tasks(
        &self,
        ended_before: Milliseconds,
        received_before: Milliseconds,
        limit: i64,
    ) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            let ids: Vec<Uuid> = sqlx::query_scalar(
                "SELECT id FROM tasks WHERE (finished_at < $1 AND fetched_at IS NOT NULL) OR received_at < $2 LIMIT $3",
            )
            .bind(ended_before)
            .bind(received_before)
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?;
            for ids in ids.chunks(ROWS_PER_STATEMENT) {
                for delete in [
                    "DELETE FROM results WHERE task_id IN (",
                    "DELETE FROM outbox WHERE task_id IN (",
                    "DELETE FROM tasks WHERE id IN (",
                ] {
                    let mut query = QueryBuilder::new(delete);
                    let mut list = query.separated(", ");
                    for id in ids {
                        list.push_bind(*id);
                    }
                    query.push(")");
                    query.build().execute(&mut *tx).await?;
                }
            }
            ids.len() as u64
        }))
    }

    /// Notes that these tasks run, as their endpoint says; of others' tasks, and of those with a result, it says nothing.
    pub(crate) async fn mark_running(&self, endpoint: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
        for ids in ids.chunks(ROWS_PER_STATEMENT) {
            transaction!(self, tx => {
                let mut query = QueryBuilder::new("UPDATE tasks SET state = ");
                query
                    .push_bind(TaskState::Running.as_str())
                    .push(" WHERE finished_at IS NULL AND endpoint_id = ")
                    .push_bind(endpoint)
                    .push(" AND id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(*id);
                }
                query.push(")");
                query.build().execute(&mut *tx).await?;
            });
        }
        Ok(())
    }
}
