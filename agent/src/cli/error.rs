use endpoint_config::DirectoryError;

use crate::auth::{AuthError, CredentialsError, LoginRequirements};
use crate::runtime::EnvironmentError;
use crate::service::{BadAddress, ServiceError};
use crate::state::StateError;
use crate::transport::ClientError;

/// The exit codes that `globus-compute-endpoint` documents (most are of `sysexits.h`).
pub mod exit_code {
    /// Any other error.
    pub const ERROR: u8 = 1;
    /// The service refuses the endpoint's data (400, 422).
    pub const DATA: u8 = 65;
    /// A file that was named is not there.
    pub const NO_INPUT: u8 = 66;
    /// The service knows no such endpoint, has locked it, or it is in use (404, 409, 423).
    pub const UNAVAILABLE: u8 = 69;
    /// The service's answer does not fit.
    pub const SOFTWARE: u8 = 70;
    /// Another instance runs.
    pub const CANNOT_CREATE: u8 = 73;
    /// The network fails: try again.
    pub const TEMPORARY: u8 = 75;
    /// The credentials are refused.
    pub const NO_PERMISSION: u8 = 77;
    /// `endpoint_setup` failed, or a configuration that was to be checked is wrong.
    pub const CONFIG: u8 = 78;
    /// The endpoint could not be stopped or deleted.
    pub const FAILED: u8 = 255;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The endpoint's files.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The listener for workers.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// No login.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// Globus Auth.
    #[error("{}", of_auth(.0))]
    Auth(#[from] AuthError),
    /// The service.
    #[error("{0}")]
    Service(ServiceError),
    /// Anything that a sentence and an exit code say.
    #[error("{text}")]
    Said {
        /// The sentence.
        text: String,
        /// The exit code.
        code: u8,
    },
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        if let ServiceError::Auth(error) = error {
            Self::Auth(error)
        } else {
            Self::Service(error)
        }
    }
}

impl CliError {
    /// A sentence that ends the command with a code.
    #[must_use]
    pub fn said(text: impl Into<String>, code: u8) -> Self {
        Self::Said {
            text: text.into(),
            code,
        }
    }

    /// How the process is to end.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Directory(DirectoryError::UnknownId(_)) => 2,
            Self::Directory(_) | Self::State(_) | Self::Environment(_) | Self::Client(_) | Self::Address(_) => {
                exit_code::ERROR
            }
            Self::Credentials(_) => exit_code::NO_PERMISSION,
            Self::Auth(error) => auth_code(error),
            Self::Service(error) => match error {
                ServiceError::Auth(error) => auth_code(error),
                ServiceError::Refused { status, .. } => match status {
                    400 | 422 => exit_code::DATA,
                    404 | 409 | 423 => exit_code::UNAVAILABLE,
                    _ => exit_code::ERROR,
                },
                ServiceError::Unreachable { .. } => exit_code::TEMPORARY,
                ServiceError::Answer(_) => exit_code::SOFTWARE,
                ServiceError::Version { .. } => exit_code::ERROR,
            },
            Self::Said { code, .. } => *code,
        }
    }

    /// How a person has to log in for the same command to work, if that is what it takes.
    pub(super) fn wants_login(&self) -> Option<LoginRequirements> {
        match self {
            Self::Auth(error) => error.wants_login().then(LoginRequirements::default),
            Self::Service(ServiceError::Refused { body, .. }) => LoginRequirements::of_answer(body),
            Self::Service(_)
            | Self::Credentials(_)
            | Self::Directory(_)
            | Self::State(_)
            | Self::Environment(_)
            | Self::Client(_)
            | Self::Address(_)
            | Self::Said { .. } => None,
        }
    }

    /// Whether other credentials are what it takes.
    pub(super) fn is_of_credentials(&self) -> bool {
        match self {
            Self::Credentials(_) => true,
            Self::Auth(error) => !error.is_passing(),
            Self::Service(ServiceError::Refused { status: 401, .. }) => true,
            Self::Service(_)
            | Self::Directory(_)
            | Self::State(_)
            | Self::Environment(_)
            | Self::Client(_)
            | Self::Address(_)
            | Self::Said { .. } => false,
        }
    }

    /// Shows it on standard error.
    pub(super) fn print(&self) {
        super::complain(&format!("Error: {self}"));
    }
}

/// A refusal of Globus Auth, as upstream says it.
fn of_auth(error: &AuthError) -> String {
    match error {
        AuthError::Refused { .. } => format!("Compute CLI Error: {error}"),
        AuthError::Credentials(_)
        | AuthError::Storage(_)
        | AuthError::LoginRequired(_)
        | AuthError::IdentityMismatch { .. }
        | AuthError::Unreachable { .. }
        | AuthError::Answer { .. } => error.to_string(),
    }
}

fn auth_code(error: &AuthError) -> u8 {
    match error {
        AuthError::Refused { .. }
        | AuthError::Answer { .. }
        | AuthError::Credentials(_)
        | AuthError::Storage(_)
        | AuthError::LoginRequired(_) => exit_code::NO_PERMISSION,
        // As Python ends by an exception that nobody catches.
        AuthError::IdentityMismatch { .. } => exit_code::ERROR,
        AuthError::Unreachable { .. } => exit_code::TEMPORARY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_end_with_upstream_s_codes() {
        for (status, code) in [
            (400, 65),
            (422, 65),
            (404, 69),
            (409, 69),
            (423, 69),
            (403, 1),
            (500, 1),
        ] {
            let error = CliError::from(ServiceError::Refused {
                call: "POST /v3/endpoints".to_owned(),
                status,
                body: String::new(),
            });
            assert_eq!(error.exit_code(), code, "{status}");
        }
        let unreachable = AuthError::Unreachable {
            url: "https://auth".to_owned(),
            reason: "no route".to_owned(),
        };
        assert_eq!(CliError::from(ServiceError::Auth(unreachable)).exit_code(), 75);
        let missing = AuthError::LoginRequired("nobody".to_owned());
        assert_eq!(CliError::from(missing).exit_code(), 77);
    }
}
