//! `interchange client ...`.

use std::collections::HashSet;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use crate::broker::{BrokerError, Management};
use crate::cli::ClientCommand;
use crate::clock;
use crate::config::{database_of, management_of};
use crate::revocation;
use crate::secrets::{hash_secret, new_secret};
use crate::store::{Client, NO_SECRET, SignIn, Store};

/// Carries out a command on the store; what it prints goes to standard output.
///
/// # Errors
/// The store's, or that there is no such client.
pub(crate) async fn run(command: ClientCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        ClientCommand::Create {
            database,
            name,
            native,
            redirect_uri,
            json,
        } => {
            if let Some(uri) = redirect_uri.iter().find(|uri| uri.fragment().is_some()) {
                bail!("--redirect-uri {uri} has a fragment (#), after which nothing can be added");
            }
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let secret = if native { None } else { Some(new_secret()?) };
            let client = Client {
                id: Uuid::new_v4(),
                name,
                secret_hash: match &secret {
                    None => NO_SECRET.to_owned(),
                    Some(secret) => hash_secret(secret)?,
                },
                created_at: clock::now(),
                revoked_at: None,
                rotation: 0,
                broker_user_at: 0,
            };
            if native || !redirect_uri.is_empty() {
                let redirect_uris = redirect_uri.iter().map(Url::to_string).collect();
                let sign_in = SignIn { native, redirect_uris };
                store.create_sign_in_client(&client, &sign_in).await?;
            } else {
                store.create_client(&client).await?;
            }
            let secret = secret.as_ref().map(|secret| secret.expose_secret());
            if json {
                writeln!(
                    out,
                    "{}",
                    json!({"client_id": client.id, "client_secret": secret, "name": client.name})
                )?;
            } else {
                writeln!(out, "client_id: {}", client.id)?;
                if let Some(secret) = secret {
                    writeln!(out, "client_secret: {secret}")?;
                }
            }
        }
        ClientCommand::List { database, json } => {
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let users: HashSet<Uuid> = store.users().await?.into_iter().map(|user| user.id).collect();
            let mut clients = store.clients().await?;
            clients.retain(|client| !users.contains(&client.id));
            if json {
                let list: Vec<_> = clients
                    .iter()
                    .map(|client| {
                        json!({
                            "client_id": client.id,
                            "name": client.name,
                            "created_at": client.created_at,
                            "revoked_at": client.revoked_at,
                        })
                    })
                    .collect();
                writeln!(out, "{}", json!(list))?;
            } else {
                for client in clients {
                    let state = if client.revoked_at.is_some() {
                        "revoked"
                    } else {
                        "active"
                    };
                    writeln!(out, "{}  {state:<7}  {}", client.id, client.name)?;
                }
            }
        }
        ClientCommand::Revoke {
            database,
            management,
            client_id,
        } => {
            let management = management_of(management, &database)?;
            let store = Store::open(database_of(database)?.expose_secret())
                .await
                .context("the client was not revoked")?;
            if !store.revoke_client(client_id, clock::now()).await? {
                bail!("there is no client {client_id} that is not revoked already");
            }
            writeln!(out, "revoked {client_id}")?;
            writeln!(out, "{}", end_connections(&store, management).await)?;
        }
    }
    Ok(())
}

/// Ends the connections of revoked clients and removed users to the broker, and says what has come of it: the client is revoked whether or
/// not the broker can be told now.
pub(crate) async fn end_connections(store: &Store, management: Option<Url>) -> String {
    const LATER: &str = "a running interchange ends its connections to the broker in its next round of cleaning up";
    let Some(url) = management else {
        return format!("the broker's management is not named (--broker-management-url): {LATER}");
    };
    let ended = async {
        // Users belong to no virtual host.
        let management = Management::new(&url, "/").map_err(BrokerError::from)?;
        revocation::carry_out(store, &management).await
    };
    match ended.await {
        Ok(users) => format!("removed {users} users of the broker, whose connections are closed"),
        Err(error) => format!("{error}: {LATER}"),
    }
}
