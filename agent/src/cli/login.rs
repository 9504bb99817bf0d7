//! `endpoint login`, `logout` and `whoami`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use endpoint_config::{BaseConfig, EndpointDirectory};
use endpoint_telemetry::Metrics;

use super::arguments::{LoginOptions, LogoutOptions, WhoamiOptions};
use super::error::{CliError, exit_code};
use super::instance::{Holder, holder};
use super::session::Session;
use super::table::table;
use super::{on_a_runtime, print};
use crate::auth::{AuthError, LoginRequirements, Profile, Scope, Tokens};

const NOT_LOGGED_IN: &str = "Unable to retrieve user information. Please log in again.";

fn tokens(base: &Path, config: Option<&BaseConfig>) -> Result<Arc<Tokens>, CliError> {
    Ok(Session::open(base, config, Arc::new(Metrics::new()), None)?.tokens)
}

pub(super) fn login(base: &Path, options: &LoginOptions) -> Result<(), CliError> {
    let tokens = tokens(base, None)?;
    on_a_runtime(async {
        let is_of_a_person = tokens.is_of_a_person()?;
        if !is_of_a_person {
            // A client has nothing to log in with but its secret, which is tried.
            for scope in [Scope::Auth, Scope::Compute] {
                tokens.token(scope).await?;
            }
        }
        if !options.force && tokens.login_required().await?.is_none() {
            print("Already logged in. Use --force to run login flow anyway");
            return Ok(());
        }
        if is_of_a_person {
            run_flow(&tokens, &LoginRequirements::default()).await?;
        }
        Ok(())
    })
}

/// Logs in again, because a command has found that it is needed.
pub(super) fn login_again(
    base: &Path,
    config: Option<&BaseConfig>,
    wanted: &LoginRequirements,
) -> Result<(), CliError> {
    let tokens = tokens(base, config)?;
    on_a_runtime(run_flow(&tokens, wanted))
}

/// Whether somebody is there to log in.
pub(super) fn can_log_in() -> bool {
    std::io::stdin().is_terminal()
}

/// Has a person open the address and bring the code.
async fn run_flow(tokens: &Tokens, wanted: &LoginRequirements) -> Result<(), CliError> {
    if !can_log_in() {
        return Err(CliError::said(
            "Unable to run native app login flow: stdin is closed or is not a TTY.",
            exit_code::ERROR,
        ));
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let flow = tokens.begin_login(&host.to_string_lossy(), wanted)?;
    let invitation = "Please authenticate with Globus here:";
    let rule = "-".repeat(invitation.len());
    print(&format!("\n{invitation}\n{rule}\n{}\n{rule}\n", flow.url()));
    let mut out = std::io::stdout();
    let _ = write!(out, "Enter the resulting Authorization Code here: ").and_then(|()| out.flush());
    let mut code = String::new();
    if std::io::stdin().lock().read_line(&mut code).is_err() || code.is_empty() {
        return Err(CliError::said(
            "An EOF was read when an authorization code was expected. (Are you running this in an interactive terminal?)",
            exit_code::ERROR,
        ));
    }
    tokens.finish_login(flow, code.trim()).await?;
    Ok(())
}

pub(super) fn logout(base: &Path, options: &LogoutOptions) -> Result<(), CliError> {
    let running: Vec<String> = EndpointDirectory::list(base)
        .into_iter()
        .filter(|directory| matches!(holder(&directory.pid_file()), Ok(Holder::Process(_))))
        .map(|directory| directory.name().to_owned())
        .collect();
    if !running.is_empty() && !options.force {
        print(&format!(
            "The following endpoints are currently running: {}\nPlease use logout --force to proceed",
            running.join(", ")
        ));
        return Ok(());
    }
    let tokens = tokens(base, None)?;
    on_a_runtime(async { tokens.logout().await.map_err(CliError::from) })?;
    print("Logout succeeded and all cached credentials were revoked");
    Ok(())
}

pub(super) fn whoami(base: &Path, options: &WhoamiOptions) -> Result<(), CliError> {
    let tokens = tokens(base, None)?;
    let rows = on_a_runtime(async {
        if tokens.login_required().await?.is_some() {
            return Err(CliError::said(NOT_LOGGED_IN, exit_code::ERROR));
        }
        profiles(&tokens, options.linked_identities).await
    })?;
    print(&table(&["Username", "Name", "ID", "Email"], &rows));
    Ok(())
}

/// The identity of the login, or all that are linked with it, as rows of a table.
async fn profiles(tokens: &Tokens, linked: bool) -> Result<Vec<Vec<String>>, CliError> {
    let explained = |error: AuthError| match error {
        // Whatever is refused, to log in again is what helps.
        AuthError::Refused { .. } | AuthError::LoginRequired(_) => CliError::said(NOT_LOGGED_IN, exit_code::ERROR),
        other @ (AuthError::Credentials(_)
        | AuthError::Storage(_)
        | AuthError::IdentityMismatch { .. }
        | AuthError::Unreachable { .. }
        | AuthError::Answer { .. }) => CliError::from(other),
    };
    let identities = tokens.identities().await.map_err(explained)?;
    let ids = if linked {
        let set = identities.identity_set.ok_or_else(|| {
            CliError::said(
                "Your current login does not have the consents required to view your full identity set. Please log in \
                 again to agree to the required consents.\n\n  Hint: endpoint logout",
                exit_code::ERROR,
            )
        })?;
        set.into_iter().map(|identity| identity.sub).collect()
    } else {
        vec![identities.sub]
    };
    let mut rows = Vec::new();
    for id in ids {
        let Profile {
            username, name, email, ..
        } = tokens.profile(id).await.map_err(explained)?;
        let shown = |text: Option<String>| text.unwrap_or_else(|| "None".to_owned());
        rows.push(vec![shown(username), shown(name), id.to_string(), shown(email)]);
    }
    Ok(rows)
}
