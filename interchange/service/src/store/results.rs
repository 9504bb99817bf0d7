use std::collections::HashMap;

use bytes::Bytes;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::tasks::TaskState;
use super::{ROWS_PER_STATEMENT, Store, StoreError, transaction};
use crate::clock::Milliseconds;

/// A result that has come in.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) task_id: Uuid,
    /// Who sent it, as the broker has checked; none if the service itself gives up the task.
    pub(crate) sender: Option<Uuid>,
    /// The message as it was sent.
    pub(crate) body: Bytes,
    pub(crate) failed: bool,
    /// When the function was called, by the worker's clock.
    pub(crate) started_at: Option<Milliseconds>,
    /// When the function returned, by the worker's clock.
    pub(crate) ended_at: Option<Milliseconds>,
}

/// What is to be done with a result after it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Forward `body` to the group's queue.
    Forward {
        /// Whose queue.
        owner: Uuid,
        group_id: Uuid,
        /// The first result of this task that was stored.
        body: Bytes,
        /// Whether it was stored just now.
        is_first: bool,
        /// When the task was accepted.
        received_at: Milliseconds,
    },
    /// It was forwarded before.
    Duplicate,
    /// There is no such task (any more).
    Unknown,
    /// The task was not sent to the endpoint that answers.
    Foreign,
}

impl Store {
    /// Stores results in one transaction and says, in the same order, what to do with each. The first result of a task
    /// is final.
    pub(crate) async fn store_results(
        &self,
        arrivals: &[Arrival],
        now: Milliseconds,
    ) -> Result<Vec<Settlement>, StoreError> {
        Ok(transaction!(self, tx => {
            // What is known of the tasks. On PostgreSQL their rows are locked in one order, so that two replicas that
            // hold results of the same tasks wait for each other and don't deadlock.
            let mut known: HashMap<Uuid, Known> = HashMap::with_capacity(arrivals.len());
            let lock = if self.is_shared() { " ORDER BY id FOR UPDATE" } else { "" };
            for part in arrivals.chunks(ROWS_PER_STATEMENT) {
                let mut query = QueryBuilder::new(
                    "SELECT id, owner, group_id, endpoint_id, received_at, finished_at, forwarded_at FROM tasks WHERE id IN (",
                );
                let mut list = query.separated(", ");
                for arrival in part {
                    list.push_bind(arrival.task_id);
                }
                query.push(")").push(lock);
                let rows: Vec<(Uuid, Uuid, Uuid, Uuid, i64, Option<i64>, Option<i64>)> =
                    query.build_query_as().fetch_all(&mut *tx).await?;
                for (id, owner, group_id, endpoint_id, received_at, finished_at, forwarded_at) in rows {
                    known.insert(id, Known { owner, group_id, endpoint_id, received_at, finished_at, forwarded_at });
                }
            }

            let mut settlements = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let Some(task) = known.get_mut(&arrival.task_id) else {
                    settlements.push(Settlement::Unknown);
                    continue;
                };
                if arrival.sender.is_some_and(|sender| sender != task.endpoint_id) {
                    settlements.push(Settlement::Foreign);
                    continue;
                }
                let (body, is_first) = if task.finished_at.is_some() {
                    if task.forwarded_at.is_some() {
                        settlements.push(Settlement::Duplicate);
                        continue;
                    }
                    let stored: Option<Vec<u8>> = sqlx::query_scalar("SELECT body FROM results WHERE task_id = $1")
                        .bind(arrival.task_id)
                        .fetch_optional(&mut *tx)
                        .await?;
                    (stored.map_or_else(|| arrival.body.clone(), Bytes::from), false)
                } else {
                    let state = if arrival.failed { TaskState::Failed } else { TaskState::Success };
                    sqlx::query(
                        "UPDATE tasks SET state = $2, started_at = $3, ended_at = $4, finished_at = $5 WHERE id = $1",
                    )
                    .bind(arrival.task_id)
                    .bind(state.as_str())
                    .bind(arrival.started_at)
                    .bind(arrival.ended_at)
                    .bind(now)
                    .execute(&mut *tx)
                    .await?;
                    sqlx::query("INSERT INTO results (task_id, body) VALUES ($1, $2)")
                        .bind(arrival.task_id)
                        .bind(&arrival.body[..])
                        .execute(&mut *tx)
                        .await?;
                    // A result before the broker's confirm: the task need not be sent again.
                    task.finished_at = Some(now);
                    (arrival.body.clone(), true)
                };
                // A second copy in the same batch is a duplicate.
                task.forwarded_at = Some(now);
                settlements.push(Settlement::Forward {
                    owner: task.owner,
                    group_id: task.group_id,
                    body,
                    is_first,
                    received_at: task.received_at,
                });
            }
            settlements
        }))
    }

    /// Notes that these tasks' results are on their clients' queues, or have no queue to go to.
    pub(crate) async fn mark_forwarded(&self, tasks: &[Uuid], now: Milliseconds) -> Result<(), StoreError> {
        for tasks in tasks.chunks(ROWS_PER_STATEMENT) {
            transaction!(self, tx => {
                let mut query = QueryBuilder::new("UPDATE tasks SET forwarded_at = ");
                query.push_bind(now).push(" WHERE id IN (");
                let mut list = query.separated(", ");
                for id in tasks {
                    list.push_bind(*id);
                }
                query.push(")");
                query.build().execute(&mut *tx).await?;
            });
        }
        Ok(())
    }
}

/// What is known of a task when a result of it comes.
struct Known {
    owner: Uuid,
    group_id: Uuid,
    endpoint_id: Uuid,
    received_at: Milliseconds,
    finished_at: Option<Milliseconds>,
    forwarded_at: Option<Milliseconds>,
}
