use std::collections::HashMap;

use sqlx::Row as _;
use uuid::Uuid;

use super::ids::fetch_by_ids;
use super::{Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// What an endpoint takes from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    /// Tasks, from a queue that was named at its registration.
    Direct,
    /// Commands that start user endpoints.
    Template,
    /// Tasks; it was started by a command to a template endpoint.
    User,
}

impl EndpointKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Template => "template",
            Self::User => "user",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "direct" => Ok(Self::Direct),
            "template" => Ok(Self::Template),
            "user" => Ok(Self::User),
            other => Err(StoreError::Unreadable {
                what: "endpoints.kind",
                value: other.to_owned(),
            }),
        }
    }
}

/// What an endpoint says of itself when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) kind: EndpointKind,
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) public: bool,
    pub(crate) multi_user: bool,
    /// A JSON object: versions, host, configuration.
    pub(crate) metadata: String,
    /// The only functions that may run; none named: all.
    pub(crate) allowed_functions: Option<Vec<Uuid>>,
    /// Identities with the owner's rights.
    pub(crate) admins: Vec<Uuid>,
    /// The remaining fields, as a JSON object.
    pub(crate) properties: String,
}

/// An endpoint of any kind.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: Uuid,
    /// Who registered it, or, for a user endpoint, who submits to it.
    pub(crate) owner: Uuid,
    /// The template endpoint of a user endpoint.
    pub(crate) parent: Option<Uuid>,
    pub(crate) registration: Registration,
    /// Of a user endpoint: `user_endpoint_config`, a JSON object.
    pub(crate) user_config: Option<String>,
    /// Of a user endpoint: `user_runtime`, a JSON object.
    pub(crate) user_runtime: Option<String>,
    pub(crate) registered_at: Milliseconds,
    /// Until then it may not register.
    pub(crate) locked_until: Milliseconds,
    /// When its last heartbeat came; 0 before the first one.
    pub(crate) heartbeat_at: Milliseconds,
    /// The time to its next heartbeat; 0 if it said that it stops.
    pub(crate) heartbeat_period_ms: i64,
    /// The last heartbeat's figures, a JSON object.
    pub(crate) report: Option<String>,
    /// The number that its broker password is derived with.
    pub(crate) rotation: i64,
    /// When its broker user was last made or renewed; 0: it has none.
    pub(crate) broker_user_at: Milliseconds,
}

/// Heartbeats that may be missed before an endpoint counts as offline.
const MISSED_HEARTBEATS: i64 = 3;
/// Added to that, for the way of the message.
const HEARTBEAT_SLACK_MS: i64 = 5_000;

impl Endpoint {
    /// Whether its heartbeats are up to date.
    pub(crate) const fn is_online(&self, now: Milliseconds) -> bool {
        self.heartbeat_period_ms > 0
            && now < self.heartbeat_at + MISSED_HEARTBEATS * self.heartbeat_period_ms + HEARTBEAT_SLACK_MS
    }

    /// Whether it has a broker user.
    pub(crate) const fn has_broker_user(&self) -> bool {
        self.broker_user_at > 0
    }

    /// Whether `identity` owns it or was made an administrator.
    pub(crate) fn is_managed_by(&self, identity: Uuid) -> bool {
        self.owner == identity || self.registration.admins.contains(&identity)
    }

    /// Whether this function may run on it.
    pub(crate) fn allows(&self, function: Uuid) -> bool {
        self.registration
            .allowed_functions
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&function))
    }
}

/// What a heartbeat changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatOutcome {
    /// There is no such endpoint (any more).
    Unknown,
    /// As before.
    Same,
    /// It was offline, and is there now.
    CameOnline,
    /// It said that it stops.
    Stopped,
}

fn list_of(text: Option<String>, what: &'static str) -> Result<Option<Vec<Uuid>>, StoreError> {
    text.map(|text| serde_json::from_str(&text).map_err(|_| StoreError::Unreadable { what, value: text }))
        .transpose()
}

fn text_of(list: &[Uuid]) -> String {
    serde_json::Value::from(list.iter().map(Uuid::to_string).collect::<Vec<_>>()).to_string()
}

macro_rules! endpoint_of {
    ($row:expr) => {
        Endpoint {
            id: $row.try_get("id")?,
            owner: $row.try_get("owner")?,
            parent: $row.try_get("parent")?,
            registration: Registration {
                kind: EndpointKind::parse($row.try_get("kind")?)?,
                name: $row.try_get("name")?,
                display_name: $row.try_get("display_name")?,
                public: $row.try_get("public")?,
                multi_user: $row.try_get("multi_user")?,
                metadata: $row.try_get("metadata")?,
                allowed_functions: list_of($row.try_get("allowed_functions")?, "endpoints.allowed_functions")?,
                admins: list_of($row.try_get("admins")?, "endpoints.admins")?.unwrap_or_default(),
                properties: $row.try_get("properties")?,
            },
            user_config: $row.try_get("user_config")?,
            user_runtime: $row.try_get("user_runtime")?,
            registered_at: $row.try_get("registered_at")?,
            locked_until: $row.try_get("locked_until")?,
            heartbeat_at: $row.try_get("heartbeat_at")?,
            heartbeat_period_ms: $row.try_get("heartbeat_period_ms")?,
            report: $row.try_get("report")?,
            rotation: $row.try_get("rotation")?,
            broker_user_at: $row.try_get("broker_user_at")?,
        }
    };
}

impl Store {
    /// Adds an endpoint; of a user endpoint that exists only `user_runtime` is renewed.
    pub(crate) async fn create_endpoint(&self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let registration = &endpoint.registration;
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO endpoints (id, kind, owner, parent, name, display_name, public, multi_user, metadata,
                    allowed_functions, admins, properties, user_config, user_runtime, created_at, registered_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
                 ON CONFLICT (id) DO UPDATE SET user_runtime = excluded.user_runtime,
                    deleted_at = NULL, cleaned_at = NULL",
            )
            .bind(endpoint.id)
            .bind(registration.kind.as_str())
            .bind(endpoint.owner)
            .bind(endpoint.parent)
            .bind(&registration.name)
            .bind(&registration.display_name)
            .bind(registration.public)
            .bind(registration.multi_user)
            .bind(&registration.metadata)
            .bind(registration.allowed_functions.as_deref().map(text_of))
            .bind(text_of(&registration.admins))
            .bind(&registration.properties)
            .bind(&endpoint.user_config)
            .bind(&endpoint.user_runtime)
            .bind(endpoint.registered_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Renews an endpoint's registration. It counts as offline until its first heartbeat after this, so that what
    /// waits for it is announced again to its new process.
    pub(crate) async fn update_endpoint(
        &self,
        id: Uuid,
        registration: &Registration,
        now: Milliseconds,
    ) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "UPDATE endpoints SET kind = $2, name = $3, display_name = $4, public = $5, multi_user = $6, metadata = $7,
                    allowed_functions = $8, admins = $9, properties = $10, registered_at = $11, heartbeat_period_ms = 0
                 WHERE id = $1",
            )
            .bind(id)
            .bind(registration.kind.as_str())
            .bind(&registration.name)
            .bind(&registration.display_name)
            .bind(registration.public)
            .bind(registration.multi_user)
            .bind(&registration.metadata)
            .bind(registration.allowed_functions.as_deref().map(text_of))
            .bind(text_of(&registration.admins))
            .bind(&registration.properties)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Those of `ids` that exist and are not deleted.
    pub(crate) async fn endpoints(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Endpoint>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        reading!(self, pool => {
            for row in fetch_by_ids!(pool, ids, "SELECT * FROM endpoints WHERE deleted_at IS NULL AND id IN") {
                let endpoint = endpoint_of!(row);
                found.insert(endpoint.id, endpoint);
            }
        });
        Ok(found)
    }

    /// The endpoint with this id, unless it is deleted.
    pub(crate) async fn endpoint(&self, id: Uuid) -> Result<Option<Endpoint>, StoreError> {
        Ok(self.endpoints(&[id]).await?.remove(&id))
    }

    /// The endpoints that `owner` registered and, if `public` is set, all public ones too; oldest first.
    pub(crate) async fn endpoints_of(&self, owner: Uuid, public: bool) -> Result<Vec<Endpoint>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query(
                "SELECT * FROM endpoints WHERE deleted_at IS NULL AND parent IS NULL AND (owner = $1 OR (public AND $2))
                 ORDER BY created_at, id",
            )
            .bind(owner)
            .bind(public)
            .fetch_all(pool)
            .await?;
            rows.into_iter().map(|row| Ok(endpoint_of!(row))).collect()
        })
    }

    /// The user endpoints of a template endpoint, oldest first.
    pub(crate) async fn user_endpoints(&self, parent: Uuid) -> Result<Vec<Endpoint>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query(
                "SELECT * FROM endpoints WHERE deleted_at IS NULL AND parent = $1 ORDER BY created_at, id",
            )
            .bind(parent)
            .fetch_all(pool)
            .await?;
            rows.into_iter().map(|row| Ok(endpoint_of!(row))).collect()
        })
    }

    /// Every endpoint that is not deleted, and so needs its queue and broker user.
    pub(crate) async fn all_endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query("SELECT * FROM endpoints WHERE deleted_at IS NULL").fetch_all(pool).await?;
            rows.into_iter().map(|row| Ok(endpoint_of!(row))).collect()
        })
    }

    /// The endpoints with tasks, their own or their user endpoints', that have no result and that the broker has had since
    /// before `before`; or does not confirm: a queue that is dead takes nothing.
    pub(crate) async fn endpoints_with_missed_tasks(&self, before: Milliseconds) -> Result<Vec<Endpoint>, StoreError> {
        reading!(self, pool => {
            let rows = sqlx::query(
                "SELECT * FROM endpoints WHERE deleted_at IS NULL AND (
                    EXISTS (SELECT 1 FROM tasks WHERE tasks.endpoint_id = endpoints.id
                        AND tasks.finished_at IS NULL AND COALESCE(tasks.sent_at, tasks.received_at) < $1)
                    OR EXISTS (SELECT 1 FROM endpoints AS child JOIN tasks ON tasks.endpoint_id = child.id
                        WHERE child.parent = endpoints.id
                        AND tasks.finished_at IS NULL AND COALESCE(tasks.sent_at, tasks.received_at) < $1))",
            )
            .bind(before)
            .fetch_all(pool)
            .await?;
            rows.into_iter().map(|row| Ok(endpoint_of!(row))).collect()
        })
    }

    /// Marks an endpoint and its user endpoints deleted.
    pub(crate) async fn delete_endpoint(&self, id: Uuid, now: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE endpoints SET deleted_at = $2, rotation = rotation + 1 WHERE (id = $1 OR parent = $1) AND deleted_at IS NULL")
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Refuses registrations of an endpoint until `until`, and changes its and its user endpoints' broker passwords.
    pub(crate) async fn lock_endpoint(&self, id: Uuid, until: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "UPDATE endpoints SET locked_until = $2, heartbeat_period_ms = 0, rotation = rotation + 1,
                    broker_user_at = 0
                 WHERE (id = $1 OR parent = $1) AND deleted_at IS NULL",
            )
            .bind(id)
            .bind(until)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Notes when an endpoint's broker user was made or renewed; 0: it has none.
    pub(crate) async fn set_endpoint_broker_user(&self, id: Uuid, at: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE endpoints SET broker_user_at = $2 WHERE id = $1")
                .bind(id)
                .bind(at)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// The deleted endpoints whose queue and broker user may still be there.
    pub(crate) async fn uncleaned_endpoints(&self) -> Result<Vec<(Uuid, EndpointKind)>, StoreError> {
        let rows: Vec<(Uuid, String)> = reading!(self, pool => sqlx::query_as(
            "SELECT id, kind FROM endpoints WHERE deleted_at IS NOT NULL AND cleaned_at IS NULL",
        )
        .fetch_all(pool)
        .await?);
        rows.into_iter()
            .map(|(id, kind)| Ok((id, EndpointKind::parse(&kind)?)))
            .collect()
    }

    /// Notes that a deleted endpoint has nothing left on the broker.
    pub(crate) async fn mark_cleaned(&self, id: Uuid, now: Milliseconds) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("UPDATE endpoints SET cleaned_at = $2, broker_user_at = 0 WHERE id = $1 AND deleted_at IS NOT NULL")
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Brings a user endpoint back that was removed for want of use, unless its template endpoint is deleted.
    pub(crate) async fn revive_user_endpoint(&self, id: Uuid) -> Result<Option<Endpoint>, StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "UPDATE endpoints SET deleted_at = NULL, cleaned_at = NULL WHERE id = $1 AND kind = 'user'
                 AND EXISTS (SELECT 1 FROM endpoints AS template WHERE template.id = endpoints.parent AND template.deleted_at IS NULL)",
            )
            .bind(id)
            .execute(&mut *tx)
            .await?;
        });
        self.endpoint(id).await
    }

    /// Marks user endpoints deleted that are offline, wait for nothing and were not submitted to since `before`.
    pub(crate) async fn retire_user_endpoints(
        &self,
        before: Milliseconds,
        now: Milliseconds,
    ) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            sqlx::query(
                "UPDATE endpoints SET deleted_at = $2 WHERE kind = 'user' AND deleted_at IS NULL
                 AND registered_at < $1 AND heartbeat_at < $1
                 AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.endpoint_id = endpoints.id
                                 AND (tasks.finished_at IS NULL OR tasks.received_at >= $1))",
            )
            .bind(before)
            .bind(now)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        }))
    }

    /// The user endpoints that have had a task to do since before `before`, are offline although their template
    /// endpoint is online, and were not nudged since `before`. They count as nudged from now on.
    pub(crate) async fn nudge_silent_user_endpoints(
        &self,
        before: Milliseconds,
        now: Milliseconds,
    ) -> Result<Vec<Uuid>, StoreError> {
        let silent: Vec<Uuid> = reading!(self, pool => sqlx::query_scalar(
            "SELECT id FROM endpoints WHERE kind = 'user' AND deleted_at IS NULL AND nudged_at < $1
             AND EXISTS (SELECT 1 FROM tasks WHERE tasks.endpoint_id = endpoints.id AND tasks.finished_at IS NULL
                         AND tasks.received_at < $1)",
        )
        .bind(before)
        .fetch_all(pool)
        .await?);
        let mut nudged = Vec::new();
        for endpoint in self
            .endpoints(&silent)
            .await?
            .into_values()
            .filter(|endpoint| !endpoint.is_online(now))
        {
            let template = match endpoint.parent {
                Some(parent) => self.endpoint(parent).await?,
                None => None,
            };
            if !template.is_some_and(|template| template.is_online(now)) {
                continue;
            }
            let changed = transaction!(self, tx => {
                sqlx::query("UPDATE endpoints SET nudged_at = $2 WHERE id = $1 AND nudged_at < $3")
                    .bind(endpoint.id)
                    .bind(now)
                    .bind(before)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected()
            });
            if changed > 0 {
                nudged.push(endpoint.id);
            }
        }
        Ok(nudged)
    }

    /// The endpoints of every kind that have a broker user which they must lose: their owner, or the owner of their
    /// template endpoint, is revoked.
    pub(crate) async fn endpoints_of_revoked(&self) -> Result<Vec<(Uuid, EndpointKind)>, StoreError> {
        let rows: Vec<(Uuid, String)> = reading!(self, pool => sqlx::query_as(
            "SELECT id, kind FROM endpoints WHERE broker_user_at > 0 AND (
                owner IN (SELECT id FROM clients WHERE revoked_at IS NOT NULL)
                OR parent IN (SELECT id FROM endpoints AS template
                              WHERE template.owner IN (SELECT id FROM clients WHERE revoked_at IS NOT NULL)))",
        )
        .fetch_all(pool)
        .await?);
        rows.into_iter()
            .map(|(id, kind)| Ok((id, EndpointKind::parse(&kind)?)))
            .collect()
    }

    /// Takes in a heartbeat: `period_ms` until the next one (0: it stops), and its figures.
    pub(crate) async fn heartbeat(
        &self,
        id: Uuid,
        now: Milliseconds,
        period_ms: i64,
        report: &str,
    ) -> Result<HeartbeatOutcome, StoreError> {
        Ok(transaction!(self, tx => {
            let before = sqlx::query_as::<_, (i64, i64)>(
                "SELECT heartbeat_at, heartbeat_period_ms FROM endpoints WHERE id = $1 AND deleted_at IS NULL",
            )
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
            match before {
                None => HeartbeatOutcome::Unknown,
                Some((at, period)) => {
                    sqlx::query("UPDATE endpoints SET heartbeat_at = $2, heartbeat_period_ms = $3, report = $4 WHERE id = $1")
                        .bind(id)
                        .bind(now)
                        .bind(period_ms)
                        .bind(report)
                        .execute(&mut *tx)
                        .await?;
                    let was_online = period > 0 && now < at + MISSED_HEARTBEATS * period + HEARTBEAT_SLACK_MS;
                    match (was_online, period_ms > 0) {
                        (_, false) => HeartbeatOutcome::Stopped,
                        (false, true) => HeartbeatOutcome::CameOnline,
                        (true, true) => HeartbeatOutcome::Same,
                    }
                }
            }
        }))
    }
}
