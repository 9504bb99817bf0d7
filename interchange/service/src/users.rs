//! `interchange user ...`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::cli::UserCommand;
use crate::clients::end_connections;
use crate::clock;
use crate::config::{database_of, management_of};
use crate::secrets::hash_secret;
use crate::store::{Store, User};

/// The shortest password that is taken, in characters.
const SHORTEST_PASSWORD: usize = 8;
/// The longest name and password that are taken, in characters.
const LONGEST: usize = 128;

/// Carries out a command on the store; what it prints goes to standard output.
///
/// # Errors
/// The store's, that the name or password can't be taken, or that there is no such user.
pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        UserCommand::Add { database, json, name } => {
            let name = name_of(&name)?;
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            if store.user_named(&name).await?.is_some() {
                bail!("there is a user {name} already");
            }
            let user = User {
                id: Uuid::new_v4(),
                password_hash: hash_secret(&ask_password(&name)?)?,
                name,
                created_at: clock::now(),
            };
            if !store.create_user(&user).await? {
                bail!("there is a user {} already", user.name);
            }
            if json {
                writeln!(out, "{}", json!({"id": user.id, "name": user.name}))?;
            } else {
                writeln!(out, "added {} with the id {}", user.name, user.id)?;
            }
        }
        UserCommand::List { database, json } => {
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let users = store.users().await?;
            if json {
                let list: Vec<_> = users
                    .iter()
                    .map(|user| json!({"id": user.id, "name": user.name, "created_at": user.created_at}))
                    .collect();
                writeln!(out, "{}", json!(list))?;
            } else {
                for user in users {
                    writeln!(out, "{}  {}", user.id, user.name)?;
                }
            }
        }
        UserCommand::Password { database, name } => {
            let store = Store::open(database_of(database)?.expose_secret()).await?;
            let user = existing(&store, &name).await?;
            let hash = hash_secret(&ask_password(&user.name)?)?;
            if !store.set_password(user.id, &hash).await? {
                bail!("there is no user {} any more", user.name);
            }
            writeln!(
                out,
                "changed the password of {}; what was signed in has to sign in again",
                user.name
            )?;
        }
        UserCommand::Remove {
            database,
            management,
            name,
        } => {
            let management = management_of(management, &database)?;
            let store = Store::open(database_of(database)?.expose_secret())
                .await
                .context("the user was not removed")?;
            let user = existing(&store, &name).await?;
            if !store.revoke_client(user.id, clock::now()).await? {
                bail!("there is no user {} any more", user.name);
            }
            writeln!(out, "removed {} with the id {}", user.name, user.id)?;
            writeln!(out, "{}", end_connections(&store, management).await)?;
        }
    }
    Ok(())
}

async fn existing(store: &Store, name: &str) -> anyhow::Result<User> {
    let name = name.to_lowercase();
    store
        .user_named(&name)
        .await?
        .with_context(|| format!("there is no user {name}; `interchange user list` shows all"))
}

/// A name in the form in which it is kept, if it can be one.
fn name_of(text: &str) -> anyhow::Result<String> {
    let name = text.to_lowercase();
    let is_good = (1..=LONGEST).contains(&name.chars().count())
        && name
            .chars()
            .all(|letter| letter.is_alphanumeric() || "._-+@".contains(letter));
    if !is_good {
        bail!("{text:?} can't be a name: it must have 1 to {LONGEST} letters, digits or any of . _ - + @");
    }
    Ok(name)
}

/// The password as a person types it twice, or as the first line of standard input.
fn ask_password(name: &str) -> anyhow::Result<SecretString> {
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password(format!("Password for {name}: "))?;
        let second = rpassword::prompt_password("The same again: ")?;
        if first != second {
            bail!("the two are not the same; nothing was changed");
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .context("no password could be read from standard input")?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    let password = SecretString::from(password);
    let length = password.expose_secret().chars().count();
    if !(SHORTEST_PASSWORD..=LONGEST).contains(&length) {
        bail!("a password has {SHORTEST_PASSWORD} to {LONGEST} characters; nothing was changed");
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_in_lower_case_and_has_no_spaces() {
        assert_eq!(name_of("Ada@Example.org").unwrap(), "ada@example.org");
        for wrong in ["", "a b", "a\n", "<b>", &"a".repeat(129)] {
            assert!(name_of(wrong).is_err(), "{wrong:?}");
        }
    }
}
