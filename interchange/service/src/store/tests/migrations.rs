use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection, SqlStr, SqliteConnection};
use uuid::Uuid;

use super::postgres::new_database;
use super::{NOW, client};
use crate::store::{Store, migrations};

/// A database as the version with so many migrations left it.
async fn old(url: &str, version: usize) -> SqliteConnection {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let mut first = migrations();
    first.truncate(version);
    Migrator::with_migrations(first).run(&mut connection).await.unwrap();
    connection
}

#[tokio::test]
async fn a_database_of_the_first_version_keeps_its_broker_users() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("old.db").display());
    let mut old = old(&url, 1).await;
    for (id, has_broker_user) in [(1, true), (2, false)] {
        sqlx::query(
            "INSERT INTO clients (id, name, secret_hash, created_at, has_broker_user) VALUES ($1, 'n', 'h', 1, $2)",
        )
        .bind(Uuid::from_u128(id))
        .bind(has_broker_user)
        .execute(&mut old)
        .await
        .unwrap();
    }
    old.close().await.unwrap();
    let clients = Store::open(&url).await.unwrap().clients().await.unwrap();
    let users: Vec<bool> = clients.iter().map(|client| client.has_broker_user()).collect();
    assert_eq!(users, [true, false]);
}

#[tokio::test]
async fn a_database_of_the_second_version_keeps_its_outbox_and_who_claims_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("old.db").display());
    let mut old = old(&url, 2).await;
    sqlx::query(
        "INSERT INTO functions (id, owner, name, code, metadata, public, created_at) VALUES ($1, $1, 'f', 'c', '{}', 0, 1)",
    )
    .bind(Uuid::from_u128(3))
    .execute(&mut old)
    .await
    .unwrap();
    for (task, claimed_until) in [(10, NOW), (11, NOW + 10)] {
        sqlx::query(
            "INSERT INTO outbox (task_id, endpoint_id, function_id, payload, claimed_until) VALUES ($1, $1, $2, 'p', $3)",
        )
        .bind(Uuid::from_u128(task))
        .bind(Uuid::from_u128(3))
        .bind(claimed_until)
        .execute(&mut old)
        .await
        .unwrap();
    }
    old.close().await.unwrap();
    let store = Store::open(&url).await.unwrap();
    for (now, task) in [(NOW, 10), (NOW + 10, 11)] {
        let entries = store.claim_outbox(now, NOW + 99, 9).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (entries[0].task_id, entries[0].payload.as_str()),
            (Uuid::from_u128(task), "p")
        );
    }
}

#[tokio::test]
async fn tables_of_the_next_release_are_taken_as_they_are() {
    let url = new_database().await;
    drop(Store::open(&url).await.unwrap());
    let mut next = migrations();
    let version = next.len() as i64 + 1;
    let text = SqlStr::from_static("CREATE TABLE of_the_next_release (id UUID PRIMARY KEY)");
    next.push(Migration::new(
        version,
        "next".into(),
        MigrationType::Simple,
        text,
        false,
    ));
    let mut connection = PgConnection::connect(&url).await.unwrap();
    Migrator::with_migrations(next).run(&mut connection).await.unwrap();
    // A replica of this release is started anew while those of the next one serve.
    let store = Store::open(&url).await.unwrap();
    store.create_client(&client(1)).await.unwrap();
    assert_eq!(store.clients().await.unwrap().len(), 1);
}

#[tokio::test]
async fn replicas_that_start_together_bring_a_database_up_to_date_once() {
    let url = new_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut first = migrations();
    first.truncate(1);
    Migrator::with_migrations(first).run(&mut connection).await.unwrap();
    let opened = futures_util::future::join_all((0..6).map(|_| Store::open(&url))).await;
    assert!(opened.iter().all(Result::is_ok));
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let known: Vec<i64> = migrations().iter().map(|migration| migration.version).collect();
    assert_eq!(applied, known);
}
