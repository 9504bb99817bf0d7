use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::ids::fetch_by_ids;
use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// A registered function.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) id: Uuid,
    pub(crate) owner: Uuid,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// The packed code, as it opens every task buffer.
    pub(crate) code: String,
    /// A JSON object: `python_version`, `sdk_version`, `serde_identifier`.
    pub(crate) metadata: String,
    /// Whether anyone may run and read it.
    pub(crate) public: bool,
    pub(crate) created_at: Milliseconds,
}

macro_rules! function_of {
    ($row:expr) => {
        Function {
            id: $row.try_get("id")?,
            owner: $row.try_get("owner")?,
            name: $row.try_get("name")?,
            description: $row.try_get("description")?,
            code: $row.try_get("code")?,
            metadata: $row.try_get("metadata")?,
            public: $row.try_get("public")?,
            created_at: $row.try_get("created_at")?,
        }
    };
}

impl Store {
    /// Adds a function.
    pub(crate) async fn create_function(&self, function: &Function) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO functions (id, owner, name, description, code, metadata, public, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(function.id)
            .bind(function.owner)
            .bind(&function.name)
            .bind(&function.description)
            .bind(&function.code)
            .bind(&function.metadata)
            .bind(function.public)
            .bind(function.created_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Those of `ids` that exist and are not deleted.
    pub(crate) async fn functions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Function>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        reading!(self, pool => {
            for row in fetch_by_ids!(pool, ids, "SELECT * FROM functions WHERE deleted_at IS NULL AND id IN") {
                let function = function_of!(row);
                found.insert(function.id, function);
            }
        });
        Ok(found)
    }

    /// The function with this id, unless it is deleted.
    pub(crate) async fn function(&self, id: Uuid) -> Result<Option<Function>, StoreError> {
        Ok(self.functions(&[id]).await?.remove(&id))
    }

    /// Deletes a function; tasks that were accepted before keep their copy in the outbox and on their queue.
    pub(crate) async fn delete_function(&self, id: Uuid, now: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE functions SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL")
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }
}
