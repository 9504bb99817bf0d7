//! Group commit: what several calls write at one time is committed together, for a commit is mostly the wait for the
//! disk. While one is under way the next ones gather; nobody waits for company.

use std::sync::Arc;

use sqlx::QueryBuilder;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::ids::{execute_by_ids, fetch_by_ids};
use super::task_state::TaskState;
use super::{OutboxEntry, Pool, ROWS_PER_STATEMENT, Store, StoreError, transaction};
use crate::clock::Milliseconds;

/// Changes that are committed together.
const TOGETHER_MAX: usize = 64;
/// Payloads of more bytes than this are committed alone: others would wait for them to be written, which is longer than
/// they would wait for the disk.
const ALONE_BYTES: usize = 1 << 20;

/// The tasks of one call, that are accepted together or not at all.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) group_id: Uuid,
    /// If the group is made with these tasks: when its result queue was declared; 0: it has none.
    pub(crate) new_group: Option<Milliseconds>,
    pub(crate) owner: Uuid,
    /// The endpoint that the client named.
    pub(crate) target_id: Uuid,
    pub(crate) received_at: Milliseconds,
    /// Until then this replica publishes them.
    pub(crate) claimed_until: Milliseconds,
    pub(crate) entries: Vec<OutboxEntry>,
}

/// Something to be committed.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Tasks are accepted.
    Accept(Arc<Submission>),
    /// The broker has these tasks.
    Settle {
        /// The tasks.
        sent: Vec<Uuid>,
        /// The time.
        now: Milliseconds,
    },
}

impl Change {
    fn is_large(&self) -> bool {
        match self {
            Self::Accept(submission) => {
                let bytes: usize = submission.entries.iter().map(|entry| entry.payload.len()).sum();
                bytes > ALONE_BYTES
            }
            Self::Settle { .. } => false,
        }
    }
}

/// A change whose caller waits.
struct Waiting {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Where changes are handed in.
pub(super) struct Committer {
    waiting: mpsc::Sender<Waiting>,
}

impl Committer {
    /// Commits what is handed in, until nobody can hand in any more.
    pub(super) fn start(pool: Pool) -> Self {
        let (sender, receiver) = mpsc::channel(TOGETHER_MAX);
        tokio::spawn(commit_together(Writer { pool }, receiver));
        Self { waiting: sender }
    }
}

impl Store {
    /// Returns when the change is committed.
    pub(super) async fn commit(&self, change: Change) -> Result<(), StoreError> {
        if change.is_large() {
            let pool = self.pool.clone();
            return Writer { pool }.write(&[change]).await;
        }
        let (done, outcome) = oneshot::channel();
        let handed_in = self.committer.waiting.send(Waiting { change, done }).await;
        handed_in.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

async fn commit_together(writer: Writer, mut waiting: mpsc::Receiver<Waiting>) {
    let mut together = Vec::with_capacity(TOGETHER_MAX);
    while waiting.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        let (changes, done): (Vec<Change>, Vec<_>) =
            together.drain(..).map(|waiting| (waiting.change, waiting.done)).unzip();
        match writer.write(&changes).await {
            // One of them may be at fault, which is no reason to refuse the others.
            Err(StoreError::Database(sqlx::Error::Database(_))) if changes.len() > 1 => {
                for (change, done) in changes.into_iter().zip(done) {
                    // Who does not wait any more needs no answer.
                    let _ = done.send(writer.write(&[change]).await);
                }
            }
            outcome => {
                let outcome = outcome.map_err(Arc::new);
                for done in done {
                    let _ = done.send(outcome.clone().map_err(StoreError::Together));
                }
            }
        }
    }
}

struct Writer {
    pool: Pool,
}

impl Writer {
    /// Writes changes in one transaction.
    async fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut sent = Vec::new();
        let mut sent_at = 0;
        for change in changes {
            if let Change::Settle { sent: more, now } = change {
                sent.extend_from_slice(more);
                sent_at = sent_at.max(*now);
            }
        }
        // As results that come at the same moment, so that transactions wait for each other and don't deadlock.
        sent.sort_unstable();
        let is_shared = self.pool.is_shared();
        transaction!(self, tx => {
            for change in changes {
                let Change::Accept(submission) = change else { continue };
                if let Some(queue_at) = submission.new_group {
                    sqlx::query("INSERT INTO task_groups (id, owner, created_at, queue_at) VALUES ($1, $2, $3, $4)")
                        .bind(submission.group_id)
                        .bind(submission.owner)
                        .bind(submission.received_at)
                        .bind(queue_at)
                        .execute(&mut *tx)
                        .await?;
                }
                for entries in submission.entries.chunks(ROWS_PER_STATEMENT) {
                    let mut query = QueryBuilder::new(
                        "INSERT INTO tasks (id, group_id, owner, target_id, endpoint_id, function_id, state, received_at) ",
                    );
                    query.push_values(entries, |mut row, entry| {
                        row.push_bind(entry.task_id)
                            .push_bind(submission.group_id)
                            .push_bind(submission.owner)
                            .push_bind(submission.target_id)
                            .push_bind(entry.endpoint_id)
                            .push_bind(entry.function_id)
                            .push_bind(TaskState::Received.as_str())
                            .push_bind(submission.received_at);
                    });
                    query.build().execute(&mut *tx).await?;
                    let mut query = QueryBuilder::new(
                        "INSERT INTO outbox (task_id, endpoint_id, function_id, payload, resource_specification,
                            result_serializers) ",
                    );
                    query.push_values(entries, |mut row, entry| {
                        let serializers = (!entry.result_serializers.is_empty())
                            .then(|| serde_json::Value::from(entry.result_serializers.clone()).to_string());
                        row.push_bind(entry.task_id)
                            .push_bind(entry.endpoint_id)
                            .push_bind(entry.function_id)
                            .push_bind(entry.payload.as_str())
                            .push_bind(entry.resource_specification.as_deref())
                            .push_bind(serializers);
                    });
                    query.build().execute(&mut *tx).await?;
                    let mut query = QueryBuilder::new("INSERT INTO outbox_claims (task_id, claimed_until) ");
                    query.push_values(entries, |mut row, entry| {
                        row.push_bind(entry.task_id).push_bind(submission.claimed_until);
                    });
                    query.build().execute(&mut *tx).await?;
                }
            }
            if is_shared && !sent.is_empty() {
                fetch_by_ids!(&mut *tx, sent, "SELECT id FROM tasks WHERE id IN", " ORDER BY id FOR UPDATE");
            }
            execute_by_ids!(tx, sent, "DELETE FROM outbox_claims WHERE task_id IN");
            execute_by_ids!(
                tx, sent,
                "UPDATE tasks SET sent_at = ", sent_at;
                ", state = CASE WHEN state = ", TaskState::Received.as_str();
                " THEN ", TaskState::WaitingForEndpoint.as_str();
                " ELSE state END WHERE id IN"
            );
        });
        Ok(())
    }
}
