use sqlx::Row as _;
use uuid::Uuid;

use super::clients::insert_client;
use super::{Client, NO_SECRET, Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A person who signs in by name and password.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The identity, which owns what the user makes.
    pub(crate) id: Uuid,
    /// In lower case; no other user has it.
    pub(crate) name: String,
    /// The argon2 hash of the password.
    pub(crate) password_hash: String,
    pub(crate) created_at: Milliseconds,
}

macro_rules! user_of {
    ($row:expr) => {
        User {
            id: $row.try_get("id")?,
            name: $row.try_get("name")?,
            password_hash: $row.try_get("password_hash")?,
            created_at: $row.try_get("created_at")?,
        }
    };
}

impl Store {
    /// Adds a user. False if the name is taken.
    pub(crate) async fn create_user(&self, user: &User) -> Result<bool, StoreError> {
        let identity = Client {
            id: user.id,
            name: user.name.clone(),
            secret_hash: NO_SECRET.to_owned(),
            created_at: user.created_at,
            revoked_at: None,
            rotation: 0,
            broker_user_at: 0,
        };
        Ok(transaction!(self, tx => {
            let is_new = sqlx::query(
                "INSERT INTO users (id, name, password_hash, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
            )
            .bind(user.id)
            .bind(&user.name)
            .bind(&user.password_hash)
            .bind(user.created_at)
            .execute(&mut *tx)
            .await?
            .rows_affected()
                > 0;
            if is_new {
                insert_client!(tx, identity);
            }
            is_new
        }))
    }

    /// All users, oldest first.
    pub(crate) async fn users(&self) -> Result<Vec<User>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query("SELECT id, name, password_hash, created_at FROM users ORDER BY created_at, id")
                .fetch_all(pool)
                .await?;
            rows.into_iter().map(|row| Ok(user_of!(row))).collect()
        })
    }

    /// The user with this id.
    pub(crate) async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query("SELECT id, name, password_hash, created_at FROM users WHERE id = $1")
                .bind(id)
                .fetch_optional(pool)
                .await?;
            Ok(match row {
                Some(row) => Some(user_of!(row)),
                None => None,
            })
        })
    }

    /// The user with this name, which is in lower case.
    pub(crate) async fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query("SELECT id, name, password_hash, created_at FROM users WHERE name = $1")
                .bind(name)
                .fetch_optional(pool)
                .await?;
            Ok(match row {
                Some(row) => Some(user_of!(row)),
                None => None,
            })
        })
    }

    /// Changes a user's password and ends every sign-in. False if there is no such user.
    pub(crate) async fn set_password(&self, id: Uuid, password_hash: &str) -> Result<bool, StoreError> {
        Ok(transaction!(self, tx => {
            let changed = sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
                .bind(id)
                .bind(password_hash)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            for statement in [
                "DELETE FROM authorization_codes WHERE user_id = $1",
                "DELETE FROM refresh_tokens WHERE user_id = $1",
                "DELETE FROM tokens WHERE client_id = $1",
            ] {
                sqlx::query(statement).bind(id).execute(&mut *tx).await?;
            }
            changed > 0
        }))
    }

    /// Counts an attempt to sign in: how many there were since the last right password, or since `forget_before`. None if
    /// it comes too early and may not be looked at.
    ///
    /// `pause` gives, for such a number, how long after this attempt the next one may be made.
    pub(crate) async fn begin_sign_in(
        &self,
        name_digest: &[u8],
        now: Milliseconds,
        forget_before: Milliseconds,
        pause: fn(i64) -> Milliseconds,
    ) -> Result<Option<i64>, StoreError> {
        Ok(transaction!(self, tx => {
            let row = sqlx::query(
                "INSERT INTO sign_in_attempts (name_digest, attempts, last_at, next_at) VALUES ($1, 1, $2, 0)
                 ON CONFLICT (name_digest) DO UPDATE
                    SET attempts = CASE WHEN sign_in_attempts.last_at < $3 THEN 1 ELSE sign_in_attempts.attempts + 1 END,
                        last_at = $2
                    WHERE sign_in_attempts.next_at <= $2
                 RETURNING attempts",
            )
            .bind(name_digest)
            .bind(now)
            .bind(forget_before)
            .fetch_optional(&mut *tx)
            .await?;
            match row {
                None => None,
                Some(row) => {
                    let attempts: i64 = row.try_get("attempts")?;
                    sqlx::query("UPDATE sign_in_attempts SET next_at = $2 WHERE name_digest = $1")
                        .bind(name_digest)
                        .bind(now.saturating_add(pause(attempts)))
                        .execute(&mut *tx)
                        .await?;
                    Some(attempts)
                }
            }
        }))
    }

    /// When the next attempt may be made under a name.
    pub(crate) async fn next_sign_in(&self, name_digest: &[u8]) -> Result<Milliseconds, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query("SELECT next_at FROM sign_in_attempts WHERE name_digest = $1")
                .bind(name_digest)
                .fetch_optional(pool)
                .await?;
            Ok(match row {
                Some(row) => row.try_get("next_at")?,
                None => 0,
            })
        })
    }

    /// Forgets the attempts under a name: the password was right.
    pub(crate) async fn forget_sign_ins(&self, name_digest: &[u8]) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("DELETE FROM sign_in_attempts WHERE name_digest = $1")
                .bind(name_digest)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }
}
