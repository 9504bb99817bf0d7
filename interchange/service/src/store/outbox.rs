//! Two tables: `outbox` keeps what a task's message is made of until the task has a result, for a broker may lose its
//! messages; `outbox_claims` names those that the broker has not confirmed, and so are to be published.

use std::sync::Arc;

use sqlx::Row as _;
use uuid::Uuid;

use super::commit::Change;
use super::ids::{execute_by_ids, fetch_by_ids, update_by_ids};
use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A task that is accepted, with all that is needed to publish it.
#[derive(Debug, Clone)]
pub(crate) struct OutboxEntry {
    pub(crate) task_id: Uuid,
    pub(crate) endpoint_id: Uuid,
    pub(crate) function_id: Uuid,
    /// The function's code, which opens the task buffer.
    pub(crate) code: Arc<str>,
    /// The packed arguments, which end it.
    pub(crate) payload: String,
    pub(crate) resource_specification: Option<String>,
    pub(crate) result_serializers: Vec<String>,
}

impl Store {
    /// Takes over up to `limit` entries that nobody has claimed beyond `now`, and claims them until `until`. None: there are
    /// none. Claims on tasks that have a result by now are dropped.
    pub(crate) async fn claim_outbox(
        &self,
        now: Milliseconds,
        until: Milliseconds,
        limit: i64,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        loop {
            let (entries, over) = self.claim_some(now, until, limit).await?;
            if !entries.is_empty() || over == 0 {
                return Ok(entries);
            }
        }
    }

    /// Claims so many entries, and says how many of the claims were on tasks that have a result by now.
    async fn claim_some(
        &self,
        now: Milliseconds,
        until: Milliseconds,
        limit: i64,
    ) -> Result<(Vec<OutboxEntry>, usize), StoreError> {
        // Replicas on PostgreSQL claim at the same time: each passes over the rows that another has locked.
        let lock = if self.is_shared() {
            " FOR UPDATE SKIP LOCKED"
        } else {
            ""
        };
        let claim = format!(
            "UPDATE outbox_claims SET claimed_until = $1 WHERE task_id IN (
                SELECT task_id FROM outbox_claims WHERE claimed_until <= $2 ORDER BY task_id LIMIT $3{lock}
             ) RETURNING task_id",
        );
        let select = "SELECT outbox.*, functions.code FROM outbox JOIN functions ON functions.id = outbox.function_id
             WHERE task_id IN";
        Ok(transaction!(self, tx => {
            let claimed: Vec<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(claim))
                .bind(until)
                .bind(now)
                .bind(limit)
                .fetch_all(&mut *tx)
                .await?;
            let mut entries = Vec::with_capacity(claimed.len());
            for row in fetch_by_ids!(&mut *tx, claimed, select) {
                let serializers: Option<String> = row.try_get("result_serializers")?;
                entries.push(OutboxEntry {
                    task_id: row.try_get("task_id")?,
                    endpoint_id: row.try_get("endpoint_id")?,
                    function_id: row.try_get("function_id")?,
                    code: row.try_get::<String, _>("code")?.into(),
                    payload: row.try_get("payload")?,
                    resource_specification: row.try_get("resource_specification")?,
                    result_serializers: match serializers {
                        None => Vec::new(),
                        Some(text) => serde_json::from_str(&text).map_err(|_| StoreError::Unreadable {
                            what: "outbox.result_serializers",
                            value: text,
                        })?,
                    },
                });
            }
            let mut over = claimed;
            over.retain(|id| entries.iter().all(|entry| entry.task_id != *id));
            execute_by_ids!(tx, over, "DELETE FROM outbox_claims WHERE task_id IN");
            (entries, over.len())
        }))
    }

    /// Puts the tasks of an endpoint that the broker has confirmed, and that have no result, among those that are to be
    /// published; how many.
    pub(crate) async fn publish_again(&self, endpoint: Uuid) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO outbox_claims (task_id, claimed_until)
                 SELECT tasks.id, 0 FROM tasks JOIN outbox ON outbox.task_id = tasks.id
                 WHERE tasks.endpoint_id = $1 AND tasks.finished_at IS NULL AND tasks.sent_at IS NOT NULL
                 ON CONFLICT (task_id) DO NOTHING",
            )
            .bind(endpoint)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        }))
    }

    /// Claims entries until `until`, or ends their claims (0). Those that are not there any more are passed over.
    pub(crate) async fn renew_claims(&self, tasks: &[Uuid], until: Milliseconds) -> Result<(), StoreError> {
        update_by_ids!(self, tasks, "UPDATE outbox_claims SET claimed_until = ", until; " WHERE task_id IN");
        Ok(())
    }

    /// Ends all claims: to be called when a process starts that has its database for itself, for then whoever claimed
    /// an entry is dead.
    pub(crate) async fn release_outbox(&self) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE outbox_claims SET claimed_until = 0").execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// Notes that the broker has confirmed these tasks.
    pub(crate) async fn settle_outbox(&self, sent: Vec<Uuid>, now: Milliseconds) -> Result<(), StoreError> {
        if sent.is_empty() {
            return Ok(());
        }
        self.commit(Change::Settle { sent, now }).await
    }

    /// How many tasks the broker has not confirmed.
    pub(crate) async fn outbox_length(&self) -> Result<i64, StoreError> {
        reading!(self, pool => Ok(sqlx::query_scalar("SELECT COUNT(*) FROM outbox_claims").fetch_one(pool).await?))
    }
}
