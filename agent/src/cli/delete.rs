use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use endpoint_config::{BaseConfig, EndpointDirectory};
use endpoint_telemetry::Metrics;

use super::arguments::DeleteOptions;
use super::error::{CliError, exit_code};
use super::instance::{Holder, holder};
use super::session::Session;
use super::stop::stop_process;
use super::{complain, on_a_runtime, print};
use crate::service::ServiceError;

pub(super) fn delete(base: &Path, options: DeleteOptions) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, &options.name)?;
    let config = match directory.read() {
        Ok((read, _)) => Some(read.config.0.base().clone()),
        Err(error) if options.force && directory.exists() => {
            complain(&format!("Note: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let id = directory
        .endpoint_id()
        .or_else(|error| if options.force { Ok(None) } else { Err(error) })?;
    let shown = id.map_or_else(String::new, |id| format!(" ( {id} )"));
    if !options.yes {
        let question = format!(
            "Are you sure you want to delete endpoint < {} >{shown}?",
            directory.name()
        );
        if !confirm(&question) {
            return Err(CliError::said("Aborted!", exit_code::ERROR));
        }
    }
    let runs = holder(&directory.pid_file()).is_ok_and(|holder| holder != Holder::None);
    if runs {
        if !options.force {
            return Err(CliError::said(
                "The endpoint is currently running. Use --force to proceed.",
                exit_code::FAILED,
            ));
        }
        stop_process(&directory)?;
    }
    if let Some(id) = id {
        match delete_remote(base, config.as_ref(), id) {
            Ok(()) => print(&format!("Endpoint {id} has been deleted from the web service")),
            Err(error) if options.force => complain(&format!("Note: {error}")),
            Err(error) => return Err(error),
        }
    }
    if super::start::state_secret().is_some() && id.is_some() {
        // Its files are the deployment's, and its state a Secret that the agent may not delete.
        print("What is left of it in the cluster goes with its deployment: `helm uninstall`, and its state Secret");
    } else if directory.exists() {
        std::fs::remove_dir_all(directory.path())
            .map_err(|error| CliError::said(format!("{}: {error}", directory.path().display()), exit_code::FAILED))?;
        remove_user_endpoints(base, id);
        print(&format!("Endpoint <{}> has been deleted", directory.name()));
    }
    Ok(())
}

/// The folders of its user endpoints are of no use without it.
fn remove_user_endpoints(base: &Path, id: Option<uuid::Uuid>) {
    let Some(prefix) = id.map(|id| format!("uep.{id}.")) else {
        return;
    };
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn delete_remote(base: &Path, config: Option<&BaseConfig>, id: uuid::Uuid) -> Result<(), CliError> {
    let session = Session::open(base, config, Arc::new(Metrics::new()), None)?;
    on_a_runtime(async {
        session.service.delete(id).await.map_err(|error| {
            let refused = matches!(error, ServiceError::Refused { .. });
            let error = CliError::from(error);
            if refused && error.wants_login().is_none() {
                CliError::said(error.to_string(), exit_code::UNAVAILABLE)
            } else {
                error
            }
        })
    })
}

fn confirm(question: &str) -> bool {
    let mut out = std::io::stdout();
    let _ = write!(out, "{question} [y/N]: ").and_then(|()| out.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
