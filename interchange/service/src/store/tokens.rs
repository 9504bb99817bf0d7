use sqlx::Row as _;
use uuid::Uuid;

use super::clients::{client_columns, client_of};
use super::{Client, Store, StoreError, reading, transaction};
use crate::clock::Milliseconds;

/// An access token that was given out.
#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    /// SHA-256 of the token.
    pub(crate) digest: Vec<u8>,
    /// Whom it speaks for.
    pub(crate) client_id: Uuid,
    /// The client that it was given to.
    pub(crate) issued_to: Uuid,
    /// Whom it may be shown to: `funcx_service` or `auth.globus.org`.
    pub(crate) resource_server: String,
    /// What it is good for, separated by spaces.
    pub(crate) scope: String,
    /// Of a user's token: the sign-in that it comes from.
    pub(crate) grant_id: Option<Uuid>,
    pub(crate) created_at: Milliseconds,
    pub(crate) expires_at: Milliseconds,
}

/// What a good access token says.
#[derive(Debug, Clone)]
pub(crate) struct Bearer {
    /// Whom it speaks for.
    pub(crate) client: Client,
    /// The client that it was given to.
    pub(crate) issued_to: Uuid,
    /// As in [`TokenRecord`].
    pub(crate) resource_server: String,
    /// As in [`TokenRecord`]; empty if a version gave it out that did not keep this.
    pub(crate) scope: String,
    pub(crate) created_at: Milliseconds,
    pub(crate) expires_at: Milliseconds,
}

/// A refresh token that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    /// SHA-256 of the token.
    pub(crate) digest: Vec<u8>,
    /// The sign-in that it comes from.
    pub(crate) grant_id: Uuid,
    pub(crate) user_id: Uuid,
    /// The client that it was given to.
    pub(crate) client_id: Uuid,
    pub(crate) resource_server: String,
    pub(crate) scope: String,
    pub(crate) created_at: Milliseconds,
    /// When it was last used, at first when it was made.
    pub(crate) used_at: Milliseconds,
}

/// An authorization code that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorizationCode {
    /// SHA-256 of the code.
    pub(crate) digest: Vec<u8>,
    /// The sign-in.
    pub(crate) grant_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) client_id: Uuid,
    pub(crate) redirect_uri: String,
    /// Of PKCE: SHA-256 of the verifier, in base64url.
    pub(crate) challenge: String,
    pub(crate) scope: String,
    pub(crate) nonce: Option<String>,
    /// Whether refresh tokens are wanted.
    pub(crate) offline: bool,
    pub(crate) signed_in_at: Milliseconds,
    pub(crate) expires_at: Milliseconds,
    pub(crate) used_at: Option<Milliseconds>,
}

/// What came of redeeming a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// The tokens are good from now on.
    Now,
    /// It was redeemed before, or is over: what it once gave is revoked, for one of the two who had it was a thief.
    Before,
}

macro_rules! insert_token {
    ($tx:ident, $token:expr) => {
        sqlx::query(
            "INSERT INTO tokens (digest, client_id, issued_to, resource_server, scope, grant_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&$token.digest)
        .bind($token.client_id)
        .bind($token.issued_to)
        .bind(&$token.resource_server)
        .bind(&$token.scope)
        .bind($token.grant_id)
        .bind($token.created_at)
        .bind($token.expires_at)
        .execute(&mut *$tx)
        .await?
    };
}

macro_rules! revoke_grant {
    ($tx:ident, $grant_id:expr) => {
        for statement in [
            "DELETE FROM refresh_tokens WHERE grant_id = $1",
            "DELETE FROM tokens WHERE grant_id = $1",
        ] {
            sqlx::query(statement).bind($grant_id).execute(&mut *$tx).await?;
        }
    };
}

impl Store {
    /// Keeps a token that is about to be given out.
    pub(crate) async fn insert_token(&self, token: &TokenRecord) -> Result<(), StoreError> {
        transaction!(self, tx => {
            insert_token!(tx, token);
        });
        Ok(())
    }

    /// What a token says, if it and whom it speaks for are good at `now`.
    pub(crate) async fn token_bearer(&self, digest: &[u8], now: Milliseconds) -> Result<Option<Bearer>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(concat!(
                "SELECT ", client_columns!(), ", COALESCE(issued_to, client_id) AS issued_to, resource_server, scope,
                        tokens.created_at AS token_created_at, expires_at
                 FROM tokens JOIN clients ON clients.id = tokens.client_id
                 WHERE tokens.digest = $1 AND tokens.expires_at > $2 AND clients.revoked_at IS NULL"
            ))
            .bind(digest)
            .bind(now)
            .fetch_optional(pool)
            .await?;
            Ok(match row {
                Some(row) => Some(Bearer {
                    client: client_of!(row),
                    issued_to: row.try_get("issued_to")?,
                    resource_server: row.try_get("resource_server")?,
                    scope: row.try_get("scope")?,
                    created_at: row.try_get("token_created_at")?,
                    expires_at: row.try_get("expires_at")?,
                }),
                None => None,
            })
        })
    }

    /// Forgets an access or refresh token that was given to this client; with a refresh token go the access tokens that
    /// were made by it.
    pub(crate) async fn revoke_token(&self, digest: &[u8], client_id: Uuid) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query("DELETE FROM tokens WHERE digest = $1 AND COALESCE(issued_to, client_id) = $2")
                .bind(digest)
                .bind(client_id)
                .execute(&mut *tx)
                .await?;
            let refresh = sqlx::query(
                "DELETE FROM refresh_tokens WHERE digest = $1 AND client_id = $2 RETURNING grant_id, resource_server",
            )
            .bind(digest)
            .bind(client_id)
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = refresh {
                let (grant, server): (Uuid, String) = (row.try_get("grant_id")?, row.try_get("resource_server")?);
                sqlx::query("DELETE FROM tokens WHERE grant_id = $1 AND resource_server = $2")
                    .bind(grant)
                    .bind(server)
                    .execute(&mut *tx)
                    .await?;
            }
        });
        Ok(())
    }

    /// Keeps a code that is about to be given out.
    pub(crate) async fn insert_code(&self, code: &AuthorizationCode) -> Result<(), StoreError> {
        transaction!(self, tx => {
            sqlx::query(
                "INSERT INTO authorization_codes
                    (digest, grant_id, user_id, client_id, redirect_uri, challenge, scope, nonce, offline, signed_in_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            )
            .bind(&code.digest)
            .bind(code.grant_id)
            .bind(code.user_id)
            .bind(code.client_id)
            .bind(&code.redirect_uri)
            .bind(&code.challenge)
            .bind(&code.scope)
            .bind(&code.nonce)
            .bind(code.offline)
            .bind(code.signed_in_at)
            .bind(code.expires_at)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// The code with this digest, used or over as it may be.
    pub(crate) async fn code(&self, digest: &[u8]) -> Result<Option<AuthorizationCode>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(
                "SELECT digest, grant_id, user_id, client_id, redirect_uri, challenge, scope, nonce, offline, signed_in_at,
                        expires_at, used_at
                 FROM authorization_codes WHERE digest = $1",
            )
            .bind(digest)
            .fetch_optional(pool)
            .await?;
            Ok(match row {
                Some(row) => Some(AuthorizationCode {
                    digest: row.try_get("digest")?,
                    grant_id: row.try_get("grant_id")?,
                    user_id: row.try_get("user_id")?,
                    client_id: row.try_get("client_id")?,
                    redirect_uri: row.try_get("redirect_uri")?,
                    challenge: row.try_get("challenge")?,
                    scope: row.try_get("scope")?,
                    nonce: row.try_get("nonce")?,
                    offline: row.try_get("offline")?,
                    signed_in_at: row.try_get("signed_in_at")?,
                    expires_at: row.try_get("expires_at")?,
                    used_at: row.try_get("used_at")?,
                }),
                None => None,
            })
        })
    }

    /// Redeems a code for these tokens, all of its grant. Of two who redeem it at once one is told that it was the second,
    /// and nobody's tokens stay. Without tokens it only ends the code.
    pub(crate) async fn redeem_code(
        &self,
        digest: &[u8],
        now: Milliseconds,
        tokens: &[TokenRecord],
        refresh_tokens: &[RefreshToken],
    ) -> Result<Redeemed, StoreError> {
        Ok(transaction!(self, tx => {
            // A second one waits here until the first has its tokens, and then finds the code used.
            let changed = sqlx::query(
                "UPDATE authorization_codes SET used_at = $2 WHERE digest = $1 AND used_at IS NULL AND expires_at > $2",
            )
            .bind(digest)
            .bind(now)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if changed > 0 {
                for token in tokens {
                    insert_token!(tx, token);
                }
                for token in refresh_tokens {
                    sqlx::query(
                        "INSERT INTO refresh_tokens
                            (digest, grant_id, user_id, client_id, resource_server, scope, created_at, used_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                    )
                    .bind(&token.digest)
                    .bind(token.grant_id)
                    .bind(token.user_id)
                    .bind(token.client_id)
                    .bind(&token.resource_server)
                    .bind(&token.scope)
                    .bind(token.created_at)
                    .bind(token.used_at)
                    .execute(&mut *tx)
                    .await?;
                }
                Redeemed::Now
            } else {
                let row = sqlx::query("SELECT grant_id FROM authorization_codes WHERE digest = $1")
                    .bind(digest)
                    .fetch_optional(&mut *tx)
                    .await?;
                if let Some(row) = row {
                    let grant: Uuid = row.try_get("grant_id")?;
                    revoke_grant!(tx, grant);
                }
                Redeemed::Before
            }
        }))
    }

    /// The refresh token with this digest, if its user is not removed.
    pub(crate) async fn refresh_token(&self, digest: &[u8]) -> Result<Option<RefreshToken>, StoreError> {
        reading!(self, pool => {
            let row = sqlx::query(
                "SELECT digest, grant_id, user_id, client_id, resource_server, scope, refresh_tokens.created_at, used_at
                 FROM refresh_tokens JOIN users ON users.id = user_id WHERE digest = $1",
            )
            .bind(digest)
            .fetch_optional(pool)
            .await?;
            Ok(match row {
                Some(row) => Some(RefreshToken {
                    digest: row.try_get("digest")?,
                    grant_id: row.try_get("grant_id")?,
                    user_id: row.try_get("user_id")?,
                    client_id: row.try_get("client_id")?,
                    resource_server: row.try_get("resource_server")?,
                    scope: row.try_get("scope")?,
                    created_at: row.try_get("created_at")?,
                    used_at: row.try_get("used_at")?,
                }),
                None => None,
            })
        })
    }

    /// Keeps an access token that was made by a refresh token. False if that was revoked meanwhile.
    pub(crate) async fn refresh(&self, digest: &[u8], token: &TokenRecord) -> Result<bool, StoreError> {
        Ok(transaction!(self, tx => {
            // Who revokes it waits for this transaction, and then finds the access token to revoke as well.
            let changed = sqlx::query("UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1")
                .bind(digest)
                .bind(token.created_at)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if changed > 0 {
                insert_token!(tx, token);
            }
            changed > 0
        }))
    }

    /// Forgets access tokens that are over; how many.
    pub(crate) async fn delete_expired_tokens(&self, now: Milliseconds) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            sqlx::query("DELETE FROM tokens WHERE expires_at <= $1").bind(now).execute(&mut *tx).await?.rows_affected()
        }))
    }

    /// Forgets refresh tokens that were not used since `unused_since`, and codes and attempts to sign in from before
    /// `old`; how many.
    pub(crate) async fn delete_old_sign_ins(
        &self,
        unused_since: Milliseconds,
        old: Milliseconds,
    ) -> Result<u64, StoreError> {
        Ok(transaction!(self, tx => {
            let mut deleted = 0;
            for (statement, before) in [
                ("DELETE FROM refresh_tokens WHERE used_at < $1", unused_since),
                ("DELETE FROM authorization_codes WHERE expires_at < $1", old),
                ("DELETE FROM sign_in_attempts WHERE last_at < $1 AND next_at < $1", old),
            ] {
                deleted += sqlx::query(statement).bind(before).execute(&mut *tx).await?.rows_affected();
            }
            deleted
        }))
    }
}
