use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row as _;
use uuid::Uuid;

use super::commit::{Change, Submission};
use super::ids::{execute_by_ids, fetch_by_ids, update_by_ids};
use super::task_state::TaskState;
use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

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
    pub(crate) async fn submit(&self, submission: Arc<Submission>) -> Result<(), StoreError> {
        self.commit(Change::Accept(submission)).await
    }

    /// Those of `ids` that exist, with their results if `with_results` is set.
    pub(crate) async fn tasks(
        &self,
        ids: &[Uuid],
        with_results: bool,
    ) -> Result<HashMap<Uuid, TaskRecord>, StoreError> {
        let select = if with_results {
            "SELECT tasks.*, results.body FROM tasks LEFT JOIN results ON results.task_id = tasks.id WHERE tasks.id IN"
        } else {
            "SELECT tasks.*, NULL AS body FROM tasks WHERE tasks.id IN"
        };
        let mut found = HashMap::with_capacity(ids.len());
        reading!(self, pool => {
            for row in fetch_by_ids!(pool, ids, select) {
                let task = task_of!(row);
                found.insert(task.id, task);
            }
        });
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
        update_by_ids!(
            self, ids, "UPDATE tasks SET fetched_at = ", now; " WHERE fetched_at IS NULL AND id IN"
        );
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
            for delete in [
                "DELETE FROM results WHERE task_id IN",
                "DELETE FROM outbox WHERE task_id IN",
                "DELETE FROM outbox_claims WHERE task_id IN",
                "DELETE FROM tasks WHERE id IN",
            ] {
                execute_by_ids!(tx, ids, delete);
            }
            ids.len() as u64
        }))
    }

    /// Notes that these tasks run, as their endpoint says; of others' tasks, and of those with a result, it says nothing.
    pub(crate) async fn mark_running(&self, endpoint: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
        update_by_ids!(
            self, ids,
            "UPDATE tasks SET state = ", TaskState::Running.as_str();
            " WHERE finished_at IS NULL AND endpoint_id = ", endpoint; " AND id IN"
        );
        Ok(())
    }
}
