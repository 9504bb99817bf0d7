use sqlx::migrate::Migrator;
use sqlx::{Connection as _, SqliteConnection};
use uuid::Uuid;

use crate::store::{Store, migrations};

#[tokio::test]
async fn a_database_of_the_first_version_keeps_its_broker_users() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("old.db").display());
    let mut old = SqliteConnection::connect(&url).await.unwrap();
    let mut first = migrations();
    first.truncate(1);
    Migrator::with_migrations(first).run(&mut old).await.unwrap();
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
