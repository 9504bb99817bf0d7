use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::ids::{execute_by_ids, fetch_by_ids, update_by_ids};
use super::task_state::TaskState;
use super::{ROWS_PER_STATEMENT, Store, StoreError, reading, transaction};
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
    /// It is to be put on its group's queue.
    Forward {
        /// The first result of this task that was stored.
        result: StoredResult,
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
            let lock = if self.is_shared() { " ORDER BY tasks.id FOR UPDATE OF tasks" } else { "" };
            let ids: Vec<Uuid> = arrivals.iter().map(|arrival| arrival.task_id).collect();
            let select =
                "SELECT tasks.id, tasks.owner, tasks.group_id, tasks.endpoint_id, tasks.received_at, tasks.finished_at,
                    tasks.forwarded_at, task_groups.queue_at
                 FROM tasks JOIN task_groups ON task_groups.id = tasks.group_id WHERE tasks.id IN";
            for row in fetch_by_ids!(&mut *tx, ids, select, lock) {
                let queue_at: i64 = row.try_get("queue_at")?;
                let task = Known {
                    queue: if queue_at > 0 { Some((row.try_get("owner")?, row.try_get("group_id")?)) } else { None },
                    endpoint_id: row.try_get("endpoint_id")?,
                    received_at: row.try_get("received_at")?,
                    finished_at: row.try_get("finished_at")?,
                    forwarded_at: row.try_get("forwarded_at")?,
                };
                known.insert(row.try_get("id")?, task);
            }

            let mut first: Vec<&Arrival> = Vec::with_capacity(arrivals.len());
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
                    first.push(arrival);
                    task.finished_at = Some(now);
                    (arrival.body.clone(), true)
                };
                // A second copy in the same batch is a duplicate.
                task.forwarded_at = Some(now);
                settlements.push(Settlement::Forward {
                    result: StoredResult {
                        task_id: arrival.task_id,
                        queue: task.queue,
                        body,
                    },
                    is_first,
                    received_at: task.received_at,
                });
            }
            for first in first.chunks(ROWS_PER_STATEMENT) {
                // Both databases name the columns of VALUES column1, column2, ...
                let mut query = QueryBuilder::new("UPDATE tasks SET finished_at = ");
                query.push_bind(now).push(
                    ", state = new.column2, started_at = new.column3, ended_at = new.column4 FROM (",
                );
                query.push_values(first, |mut row, arrival| {
                    let state = if arrival.failed { TaskState::Failed } else { TaskState::Success };
                    row.push_bind(arrival.task_id)
                        .push_bind(state.as_str())
                        .push_bind(arrival.started_at)
                        .push_bind(arrival.ended_at);
                });
                query.push(") AS new WHERE tasks.id = new.column1");
                query.build().execute(&mut *tx).await?;
                let mut query = QueryBuilder::new("INSERT INTO results (task_id, body) ");
                query.push_values(first, |mut row, arrival| {
                    row.push_bind(arrival.task_id).push_bind(&arrival.body[..]);
                });
                query.build().execute(&mut *tx).await?;
                let ids: Vec<Uuid> = first.iter().map(|arrival| arrival.task_id).collect();
                execute_by_ids!(tx, ids, "DELETE FROM outbox WHERE task_id IN");
            }
            settlements
        }))
    }

    /// The bytes of the results that there are of these tasks.
    pub(crate) async fn result_sizes(&self, tasks: &[Uuid]) -> Result<HashMap<Uuid, usize>, StoreError> {
        let mut sizes = HashMap::with_capacity(tasks.len());
        reading!(self, pool => {
            // As a 64-bit number on both databases.
            let select = "SELECT task_id, CAST(LENGTH(body) AS BIGINT) AS bytes FROM results WHERE task_id IN";
            for row in fetch_by_ids!(pool, tasks, select) {
                let bytes: i64 = row.try_get("bytes")?;
                sizes.insert(row.try_get("task_id")?, usize::try_from(bytes).unwrap_or_default());
            }
        });
        Ok(sizes)
    }

    /// Notes that these tasks' results are on their clients' queues, or have no queue to go to.
    pub(crate) async fn mark_forwarded(&self, tasks: &[Uuid], now: Milliseconds) -> Result<(), StoreError> {
        update_by_ids!(self, tasks, "UPDATE tasks SET forwarded_at = ", now; " WHERE id IN");
        Ok(())
    }

    /// Results that were stored before `before` and are on no client's queue yet: with each, the owner and group whose
    /// queue it goes to, if there is one.
    pub(crate) async fn unforwarded_results(
        &self,
        before: Milliseconds,
        limit: i64,
    ) -> Result<Vec<StoredResult>, StoreError> {
        let rows: Vec<(Uuid, Uuid, Uuid, i64, Vec<u8>)> = reading!(self, pool => sqlx::query_as(
            "SELECT tasks.id, tasks.owner, tasks.group_id, task_groups.queue_at, results.body
             FROM tasks JOIN task_groups ON task_groups.id = tasks.group_id JOIN results ON results.task_id = tasks.id
             WHERE tasks.finished_at < $1 AND tasks.forwarded_at IS NULL LIMIT $2",
        )
        .bind(before)
        .bind(limit)
        .fetch_all(pool)
        .await?);
        Ok(rows
            .into_iter()
            .map(|(task_id, owner, group, queue_at, body)| StoredResult {
                task_id,
                queue: (queue_at > 0).then_some((owner, group)),
                body: body.into(),
            })
            .collect())
    }
}

/// A result that is stored and still to be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredResult {
    pub(crate) task_id: Uuid,
    /// The owner and task group whose queue it goes to; none if the client asked for no queue.
    pub(crate) queue: Option<(Uuid, Uuid)>,
    pub(crate) body: Bytes,
}

/// What is known of a task when a result of it comes.
struct Known {
    queue: Option<(Uuid, Uuid)>,
    endpoint_id: Uuid,
    received_at: Milliseconds,
    finished_at: Option<Milliseconds>,
    forwarded_at: Option<Milliseconds>,
}
