use sqlx::Row as _;

use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A key that id_tokens are signed with, as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct SigningKey {
    /// Which server key it belongs to; also the `kid` of what it signs.
    pub(crate) id: String,
    /// The JSON Web Key that verifies.
    pub(crate) public_key: String,
    /// The encrypted private key.
    pub(crate) sealed: Vec<u8>,
    pub(crate) created_at: Milliseconds,
}

impl Store {
    /// Keeps a key, unless there is one with its id: another replica was first then.
    pub(crate) async fn add_signing_key(&self, key: &SigningKey) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO signing_keys (id, public_key, sealed, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(&key.id)
            .bind(&key.public_key)
            .bind(&key.sealed)
            .bind(key.created_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// All keys, newest first.
    pub(crate) async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query("SELECT id, public_key, sealed, created_at FROM signing_keys ORDER BY created_at DESC, id")
                .fetch_all(pool)
                .await?;
            rows.into_iter()
                .map(|row| {
                    Ok(SigningKey {
                        id: row.try_get("id")?,
                        public_key: row.try_get("public_key")?,
                        sealed: row.try_get("sealed")?,
                        created_at: row.try_get("created_at")?,
                    })
                })
                .collect()
        })
    }
}
