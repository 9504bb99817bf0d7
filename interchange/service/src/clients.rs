//! `interchange client ...`.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{hash_secret, new_secret};
use crate::cli::ClientCommand;
use crate::clock;
use crate::config::database_of;
use crate::store::{Client, Store};

/// Carries out a command on the store; what it prints goes to standard output.
///
/// # Errors
/// The store's, or that there is no such client.
pub(crate) async fn run(command: ClientCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        ClientCommand::Create { database, name, json } => {
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let secret = new_secret()?;
            let client = Client {
                id: Uuid::new_v4(),
                name,
                secret_hash: hash_secret(&secret)?,
                created_at: clock::now(),
                revoked_at: None,
                rotation: 0,
                has_broker_user: false,
            };
            store.create_client(&client).await?;
            let secret = secret.expose_secret();
            if json {
                writeln!(
                    out,
                    "{}",
                    json!({"client_id": client.id, "client_secret": secret, "name": client.name})
                )?;
            } else {
                writeln!(out, "client_id: {}\nclient_secret: {secret}", client.id)?;
            }
        }
        ClientCommand::List { database, json } => {
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let clients = store.clients().await?;
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
        ClientCommand::Revoke { database, client_id } => {
            let store = Store::open(database_of(database)?.expose_secret())
                .await
                .context("the client was not revoked")?;
            if !store.revoke_client(client_id, clock::now()).await? {
                bail!("there is no client {client_id} that is not revoked already");
            }
            writeln!(out, "revoked {client_id}")?;
        }
    }
    Ok(())
}
