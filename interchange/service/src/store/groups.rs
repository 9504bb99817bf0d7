use sqlx::Row as _;
use uuid::Uuid;

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

    /// Makes a task group, or notes that its queue is in use from `queue_at` on (0: it has no queue). To be called
    /// before the queue is declared: from then on housekeeping leaves it alone for a while.
    pub(crate) async fn use_group(
        &self,
        id: Uuid,
        owner: Uuid,
        now: Milliseconds,
        queue_at: Milliseconds,
    ) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO task_groups (id, owner, created_at, queue_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET queue_idle_since = NULL,
                    queue_at = CASE WHEN excluded.queue_at > 0 THEN excluded.queue_at ELSE task_groups.queue_at END",
            )
            .bind(id)
            .bind(owner)
            .bind(now)
            .bind(queue_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }
}
