use sqlx::Row as _;
use uuid::Uuid;

use super::ids::update_by_ids;
use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A task group: the tasks whose results go to one queue.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: Uuid,
    pub(crate) owner: Uuid,
    /// When its result queue was last declared; 0 if it has none.
    pub(crate) queue_at: Milliseconds,
    /// Since when its queue was seen empty and without a consumer.
    pub(crate) queue_idle_since: Option<Milliseconds>,
}

macro_rules! group_of {
    ($row:expr) => {
        Group {
            id: $row.try_get("id")?,
            owner: $row.try_get("owner")?,
            queue_at: $row.try_get("queue_at")?,
            queue_idle_since: $row.try_get("queue_idle_since")?,
        }
    };
}

impl Store {
    /// The task group with this id.
    pub(crate) async fn group(&self, id: Uuid) -> Result<Option<Group>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query("SELECT * FROM task_groups WHERE id = $1").bind(id).fetch_optional(pool).await?;
            Ok(match row {
                Some(row) => Some(group_of!(row)),
                None => None,
            })
        })
    }

    /// Notes that a group is in use, and its queue from `queue_at` on (0: it gets none). To be called before the queue
    /// is declared: from then on housekeeping leaves it alone for a while.
    pub(crate) async fn use_group(&self, id: Uuid, queue_at: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "UPDATE task_groups SET queue_idle_since = NULL,
                    queue_at = CASE WHEN $2 > 0 THEN $2 ELSE queue_at END
                 WHERE id = $1",
            )
            .bind(id)
            .bind(queue_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// The groups with a result queue that was not declared since `before` and whose tasks all have their results on
    /// it; least recently used first. With each, since when its queue was seen idle.
    pub(crate) async fn groups_with_idle_work(&self, before: Milliseconds) -> Result<Vec<Group>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query(
                "SELECT * FROM task_groups WHERE queue_at > 0 AND queue_at < $1
                 AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.group_id = task_groups.id AND tasks.forwarded_at IS NULL)
                 ORDER BY queue_at LIMIT 5000",
            )
            .bind(before)
            .fetch_all(pool)
            .await?;
            rows.into_iter().map(|row| Ok(group_of!(row))).collect()
        })
    }

    /// The groups with a result queue and with tasks whose results are not on it.
    pub(crate) async fn groups_that_wait(&self) -> Result<Vec<Group>, StoreError> {
        reading!(self, pool => {
            // By the partial indexes on tasks: most groups wait for nothing.
            let rows = sqlx::query(
                "SELECT * FROM task_groups WHERE queue_at > 0 AND id IN (
                    SELECT group_id FROM tasks WHERE finished_at IS NULL
                    UNION SELECT group_id FROM tasks WHERE finished_at IS NOT NULL AND forwarded_at IS NULL)",
            )
            .fetch_all(pool)
            .await?;
            rows.into_iter().map(|row| Ok(group_of!(row))).collect()
        })
    }

    /// Notes since when a group's queue is idle; none: it is in use.
    pub(crate) async fn set_queue_idle(&self, groups: &[Uuid], since: Option<Milliseconds>) -> Result<(), StoreError> {
        update_by_ids!(self, groups, "UPDATE task_groups SET queue_idle_since = ", since; " WHERE id IN");
        Ok(())
    }

    /// Gives up a group's queue, if it is idle since before `before` and no task of it is unfinished. `remove` is
    /// awaited while the group is locked, so that no submit can count on the queue in between; it says whether the
    /// queue is gone. The group's results then count as read, for the queue was empty.
    pub(crate) async fn retire_queue(
        &self,
        group: Uuid,
        before: Milliseconds,
        now: Milliseconds,
        remove: impl Future<Output = bool> + Send,
    ) -> Result<bool, StoreError> {
        Ok(transaction!(self, tx => {
            let claimed = sqlx::query(
                "UPDATE task_groups SET queue_at = 0, queue_idle_since = NULL WHERE id = $1 AND queue_idle_since < $2
                 AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.group_id = task_groups.id AND tasks.finished_at IS NULL)",
            )
            .bind(group)
            .bind(before)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if claimed == 0 || !remove.await {
                return Ok(false);
            }
            sqlx::query("UPDATE tasks SET fetched_at = $2 WHERE group_id = $1 AND fetched_at IS NULL")
                .bind(group)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            true
        }))
    }

    /// Notes that these groups' queues are gone, unless they were declared since `before`.
    pub(crate) async fn forget_queues(&self, groups: &[Uuid], before: Milliseconds) -> Result<(), StoreError> {
        update_by_ids!(
            self, groups,
            "UPDATE task_groups SET queue_at = 0, queue_idle_since = NULL WHERE queue_at < ", before; " AND id IN"
        );
        Ok(())
    }

    /// Deletes groups without tasks and without a queue that were made before `before`.
    pub(crate) async fn delete_empty_groups(&self, before: Milliseconds) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            sqlx::query(
                "DELETE FROM task_groups WHERE queue_at = 0 AND created_at < $1
                 AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.group_id = task_groups.id)",
            )
            .bind(before)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        }))
    }
}
