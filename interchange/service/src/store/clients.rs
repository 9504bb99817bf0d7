use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A client: a program or person with credentials of its own. Its id is its identity (`sub`).
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: Uuid,
    /// For people.
    pub(crate) name: String,
    /// The argon2 hash of its secret.
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

    /// Its name in the form that Globus Auth gives to clients.
    pub(crate) fn username(&self) -> String {
        format!("{}@clients.auth.globus.org", self.id)
    }
}

/// An access token that was given out.
#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    /// SHA-256 of the token.
    pub(crate) digest: Vec<u8>,
    pub(crate) client_id: Uuid,
    /// Whom it may be shown to: `funcx_service` or `auth.globus.org`.
    pub(crate) resource_server: String,
    pub(crate) created_at: Milliseconds,
    pub(crate) expires_at: Milliseconds,
}

macro_rules! client_of {
    ($row:expr) => {
        Client {
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

impl Store {
    /// Adds a client.
    pub(crate) async fn create_client(&self, client: &Client) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("INSERT INTO clients (id, name, secret_hash, created_at) VALUES ($1, $2, $3, $4)")
                .bind(client.id)
                .bind(&client.name)
                .bind(&client.secret_hash)
                .bind(client.created_at)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// The client with this id, revoked or not.
    pub(crate) async fn client(&self, id: Uuid) -> Result<Option<Client>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query("SELECT * FROM clients WHERE id = $1").bind(id).fetch_optional(pool).await?;
            Ok(match row {
                Some(row) => Some(client_of!(row)),
                None => None,
            })
        })
    }

    /// All clients, oldest first.
    pub(crate) async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query("SELECT * FROM clients ORDER BY created_at, id").fetch_all(pool).await?;
            rows.into_iter().map(|row| Ok(client_of!(row))).collect()
        })
    }

    /// Revokes a client and all its tokens. False if there is no such client, or it was revoked before.
    pub(crate) async fn revoke_client(&self, id: Uuid, now: Milliseconds) -> Result<bool, StoreError> {
        Ok(transaction!(self, tx => {
            let changed = sqlx::query("UPDATE clients SET revoked_at = $2, rotation = rotation + 1 WHERE id = $1 AND revoked_at IS NULL")
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            sqlx::query("DELETE FROM tokens WHERE client_id = $1").bind(id).execute(&mut *tx).await?;
            changed > 0
        }))
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

    /// Keeps a token that is about to be given out.
    pub(crate) async fn insert_token(&self, token: &TokenRecord) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO tokens (digest, client_id, resource_server, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(&token.digest)
            .bind(token.client_id)
            .bind(&token.resource_server)
            .bind(token.created_at)
            .bind(token.expires_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// The client that a token speaks for, with the token's resource server, if both are good at `now`.
    pub(crate) async fn token_bearer(
        &self,
        digest: &[u8],
        now: Milliseconds,
    ) -> Result<Option<(Client, String)>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(
                "SELECT clients.*, tokens.resource_server FROM tokens JOIN clients ON clients.id = tokens.client_id
                 WHERE tokens.digest = $1 AND tokens.expires_at > $2 AND clients.revoked_at IS NULL",
            )
            .bind(digest)
            .bind(now)
            .fetch_optional(pool)
            .await?;
            Ok(match row {
                Some(row) => Some((client_of!(row), row.try_get("resource_server")?)),
                None => None,
            })
        })
    }

    /// Forgets a token of this client.
    pub(crate) async fn revoke_token(&self, digest: &[u8], client_id: Uuid) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("DELETE FROM tokens WHERE digest = $1 AND client_id = $2")
                .bind(digest)
                .bind(client_id)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Forgets tokens that are over; how many.
    pub(crate) async fn delete_expired_tokens(&self, now: Milliseconds) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            sqlx::query("DELETE FROM tokens WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?.rows_affected()
        }))
    }
}
