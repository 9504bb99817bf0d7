use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// What stands for the hash of those that have no secret: native clients and users. No secret has this hash.
pub(crate) const NO_SECRET: &str = "none";

/// Whoever may call: a client with a secret of its own, a client that users sign in for, or a user. Its id is its identity
/// (`sub`), which owns functions, endpoints and tasks.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: Uuid,
    /// For people.
    pub(crate) name: String,
    /// The argon2 hash of its secret; [`NO_SECRET`] if it has none.
    pub(crate) secret_hash: String,
    pub(crate) created_at: Milliseconds,
    /// Since when it may do nothing any more.
    pub(crate) revoked_at: Option<Milliseconds>,
    /// The number that its broker password is derived with.
    pub(crate) rotation: i64,
    /// When its broker user was last made or renewed; 0: it has none.
    pub(crate) broker_user_at: Milliseconds,
}

impl Client {
    /// Whether it has a broker user.
    pub(crate) const fn has_broker_user(&self) -> bool {
        self.broker_user_at > 0
    }

    /// Its name as Globus Auth would tell it: a user's own, and a client's made of its id.
    pub(crate) fn username(&self) -> String {
        // A native client has no secret either, and nothing is ever done in its name.
        if self.secret_hash == NO_SECRET {
            self.name.clone()
        } else {
            format!("{}@clients.auth.globus.org", self.id)
        }
    }
}

/// How users sign in for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignIn {
    /// Whether it runs on its user's machine and can keep no secret.
    pub(crate) native: bool,
    /// Where it may have its codes sent, beside what every native client may.
    pub(crate) redirect_uris: Vec<String>,
}

/// The columns that [`client_of`] reads. They are named, for a statement that was prepared with `*` fails once a later
/// version has added a column.
macro_rules! client_columns {
    () => {
        "clients.id, clients.name, clients.secret_hash, clients.created_at, clients.revoked_at, clients.rotation, clients.broker_user_at"
    };
}
pub(super) use client_columns;

macro_rules! client_of {
    ($row:expr) => {
        $crate::store::Client {
            id: $row.try_get("id")?,
            name: $row.try_get("name")?,
            secret_hash: $row.try_get("secret_hash")?,
            created_at: $row.try_get("created_at")?,
            revoked_at: $row.try_get("revoked_at")?,
            rotation: $row.try_get("rotation")?,
            broker_user_at: $row.try_get("broker_user_at")?,
        }
    };
}
pub(super) use client_of;

macro_rules! insert_client {
    ($tx:ident, $client:expr) => {
        sqlx::query("INSERT INTO clients (id, name, secret_hash, created_at) VALUES ($1, $2, $3, $4)")
            .bind($client.id)
            .bind(&$client.name)
            .bind(&$client.secret_hash)
            .bind($client.created_at)
            .execute(&mut *$tx)
            .await?
    };
}
pub(super) use insert_client;

impl Store {
    /// Adds a client.
    pub(crate) async fn create_client(&self, client: &Client) -> Result<(), StoreError> {
        transaction!(self, tx => {
            insert_client!(tx, client);
        });
        Ok(())
    }

    /// Adds a client that users may sign in for.
    pub(crate) async fn create_sign_in_client(&self, client: &Client, sign_in: &SignIn) -> Result<(), StoreError> {
        let redirect_uris = json!(sign_in.redirect_uris).to_string();
        transaction!(self, tx => {
            insert_client!(tx, client);
            sqlx::query("INSERT INTO sign_in_clients (client_id, native, redirect_uris) VALUES ($1, $2, $3)")
                .bind(client.id)
                .bind(sign_in.native)
                .bind(redirect_uris)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// The client with this id, and how users sign in for it, if they may. None if it is revoked.
    pub(crate) async fn sign_in_client(&self, id: Uuid) -> Result<Option<(Client, SignIn)>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(concat!(
                "SELECT ", client_columns!(), ", native, redirect_uris
                 FROM clients JOIN sign_in_clients ON client_id = clients.id WHERE clients.id = $1 AND revoked_at IS NULL"
            ))
            .bind(id)
            .fetch_optional(pool)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let text: String = row.try_get("redirect_uris")?;
            let Ok(redirect_uris) = serde_json::from_str(&text) else {
                return Err(StoreError::Unreadable { what: "sign_in_clients.redirect_uris", value: text });
            };
            Ok(Some((client_of!(row), SignIn { native: row.try_get("native")?, redirect_uris })))
        })
    }

    /// The client with this id, revoked or not.
    pub(crate) async fn client(&self, id: Uuid) -> Result<Option<Client>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(concat!("SELECT ", client_columns!(), " FROM clients WHERE id = $1")).bind(id).fetch_optional(pool).await?;
            Ok(match row {
                Some(row) => Some(client_of!(row)),
                None => None,
            })
        })
    }

    /// All clients and users, those that are revoked included, oldest first.
    pub(crate) async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query(concat!("SELECT ", client_columns!(), " FROM clients ORDER BY created_at, id")).fetch_all(pool).await?;
            rows.into_iter().map(|row| Ok(client_of!(row))).collect()
        })
    }

    /// Revokes a client or user with all its tokens, and those that users gave to it. Its name is free again. False if
    /// there is no such client, or it was revoked before.
    pub(crate) async fn revoke_client(&self, id: Uuid, now: Milliseconds) -> Result<bool, StoreError> {
        Ok(transaction!(self, tx => {
            let changed = sqlx::query("UPDATE clients SET revoked_at = $2, rotation = rotation + 1 WHERE id = $1 AND revoked_at IS NULL")
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            for statement in [
                "DELETE FROM tokens WHERE client_id = $1 OR issued_to = $1",
                "DELETE FROM refresh_tokens WHERE user_id = $1 OR client_id = $1",
                "DELETE FROM authorization_codes WHERE user_id = $1 OR client_id = $1",
                "DELETE FROM users WHERE id = $1",
            ] {
                sqlx::query(statement).bind(id).execute(&mut *tx).await?;
            }
            changed > 0
        }))
    }

    /// Removes a client that is revoked and has no broker user any more, with its functions. No task may be of them.
    pub(crate) async fn forget_client(&self, id: Uuid) -> Result<(), StoreError> {
        transaction!(self, tx => {
            for statement in [
                "DELETE FROM functions WHERE owner = $1",
                "DELETE FROM clients WHERE id = $1",
            ] {
                sqlx::query(statement).bind(id).execute(&mut *tx).await?;
            }
        });
        Ok(())
    }

    /// Notes when a client's broker user was made or renewed; 0: it has none.
    pub(crate) async fn set_client_broker_user(&self, id: Uuid, at: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE clients SET broker_user_at = $2 WHERE id = $1")
                .bind(id)
                .bind(at)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }
}
