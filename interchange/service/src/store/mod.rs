//! Everything that outlives a request: clients, users, tokens, signing keys, functions, endpoints, tasks, results and the outbox.
//!
//! SQLite and PostgreSQL run the same statements (`$1` placeholders, `RETURNING`, `UPDATE ... FROM`); the macros
//! [`reading`] and [`transaction`] compile each function once for either. SQLite has one writing connection, so a
//! write waits for the one before it and never fails for a lock; readers go on beside it.

mod clients;
mod commit;
mod endpoints;
mod functions;
mod groups;
mod ids;
mod outbox;
mod results;
mod signing_keys;
mod task_state;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgPool, SqlStr, SqliteConnection, SqlitePool};

use commit::Committer;

pub(crate) use clients::{Client, NO_SECRET, SignIn};
pub(crate) use commit::Submission;
pub(crate) use endpoints::{Endpoint, EndpointKind, HeartbeatOutcome, Registration};
pub(crate) use functions::Function;
pub(crate) use outbox::OutboxEntry;
pub(crate) use results::{Arrival, Settlement, StoredResult};
pub(crate) use signing_keys::SigningKey;
pub(crate) use task_state::TaskState;
pub(crate) use tasks::TaskRecord;
pub(crate) use tokens::{AuthorizationCode, Redeemed, RefreshToken, TokenRecord};
pub(crate) use users::User;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The URL names neither of the known databases.
    #[error("the database URL must start with sqlite: or postgres:")]
    Scheme,
    /// The database refused or could not be reached.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A commit that several calls shared failed.
    #[error(transparent)]
    Together(Arc<Self>),
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// The tables could not be made or brought up to date.
    #[error("the database could not be brought to this version's tables: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row holds what this version cannot read.
    #[error("the database holds {what} that this version cannot read: {value:?}")]
    Unreadable {
        /// The column.
        what: &'static str,
        /// What it holds.
        value: String,
    },
}

impl StoreError {
    /// Whether the database could not write for want of room on its disk.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            // SQLite's SQLITE_FULL and PostgreSQL's disk_full.
            Self::Database(sqlx::Error::Database(error)) => {
                matches!(error.code().as_deref(), Some("13" | "53100"))
            }
            Self::Together(error) => error.is_full(),
            Self::Scheme | Self::Database(_) | Self::Closed | Self::Migrate(_) | Self::Unreadable { .. } => false,
        }
    }
}

#[derive(Clone)]
enum Pool {
    Sqlite { read: SqlitePool, write: SqlitePool },
    Postgres(PgPool),
}

impl Pool {
    /// Whether other processes may serve from the same database, as replicas on PostgreSQL do.
    const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// A handle to the database; cheap to use from many tasks at once.
pub(crate) struct Store {
    pool: Pool,
    committer: Committer,
}

/// Runs `$body` with `$pool` as a connection source for reads.
macro_rules! reading {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite { read: $pool, .. } => $body,
            $crate::store::Pool::Postgres($pool) => $body,
        }
    };
}
pub(crate) use reading;

/// Runs `$body` in a transaction `$tx`, committed at its end and rolled back if it leaves by `?`.
macro_rules! transaction {
    ($store:expr, $tx:ident => $body:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite { write, .. } => {
                // Immediate, for a transaction that reads first could otherwise not become a writer.
                let mut $tx = write.begin_with("BEGIN IMMEDIATE").await?;
                let value = $body;
                $tx.commit().await?;
                value
            }
            $crate::store::Pool::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let value = $body;
                $tx.commit().await?;
                value
            }
        }
    };
}
pub(crate) use transaction;

/// Rows per statement: under SQLite's limit of 32,766 parameters for every table here.
const ROWS_PER_STATEMENT: usize = 1_000;

/// For so long a call waits for a connection to PostgreSQL before it fails, and its client is told to try again.
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Opens the database that `url` names (`sqlite:///absolute/file.db` or `postgres://...`) and brings its tables up
    /// to date. A SQLite file is made if it is absent. Tables of the next release are taken as they are.
    ///
    /// # Errors
    /// [`StoreError`]: the URL is not understood, or the database is out of reach or has other tables.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        let pool = if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(30));
            private_file(options.get_filename());
            let write = SqlitePoolOptions::new()
                .max_connections(1)
                .after_release(|connection, _| Box::pin(is_outside_transactions(connection)))
                .connect_with(options.clone())
                .await?;
            // A reader that connects before the tables are brought up to date would go on seeing the old columns.
            migrator().run(&write).await?;
            let read = SqlitePoolOptions::new()
                .max_connections(4)
                .connect_with(options)
                .await?;
            Pool::Sqlite { read, write }
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url)?;
            let pool = PgPoolOptions::new()
                .max_connections(10)
                .acquire_timeout(ACQUIRE_PATIENCE)
                .connect_with(options)
                .await?;
            migrator().run(&pool).await?;
            Pool::Postgres(pool)
        } else {
            return Err(StoreError::Scheme);
        };
        let committer = Committer::start(pool.clone());
        Ok(Self { pool, committer })
    }

    /// Whether other processes may serve from the same database, as replicas on PostgreSQL do.
    pub(crate) const fn is_shared(&self) -> bool {
        self.pool.is_shared()
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it gives none.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        reading!(self, pool => sqlx::query("SELECT 1").execute(pool).await.map(|_| ()))?;
        Ok(())
    }
}

/// Whether a connection that comes back has ended its transaction. On a full disk SQLite ends one by itself, which sqlx
/// does not notice: it could begin none on that connection any more.
async fn is_outside_transactions(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // The rollback of a transaction that was dropped is under way: the answer comes after it.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Makes an absent database file readable by its owner only, before SQLite makes it with the usual rights.
fn private_file(file: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    // A failure here is reported by SQLite with its own words a moment later.
    let _ = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file);
}

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(migrations());
    // A release only adds to the tables of the one before, and so that one can be started again beside it: its pod may
    // be moved in the middle of an upgrade, or the upgrade be taken back.
    migrator.set_ignore_missing(true);
    migrator
}

/// What makes the tables, in the order in which it was written.
fn migrations() -> Vec<Migration> {
    let migration = |version, description, text| {
        let text = SqlStr::from_static(text);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, text, false)
    };
    vec![
        migration(1, "initial", include_str!("../../migrations/0001_initial.sql")),
        migration(
            2,
            "broker user age",
            include_str!("../../migrations/0002_broker_user_age.sql"),
        ),
        migration(
            3,
            "outbox claims",
            include_str!("../../migrations/0003_outbox_claims.sql"),
        ),
        migration(4, "users", include_str!("../../migrations/0004_users.sql")),
    ]
}
