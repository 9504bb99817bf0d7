use super::credentials::CredentialsError;
use super::storage::StorageError;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It can not be told who the endpoint is.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The tokens of a login can not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nobody has logged in, or the login is of no use.
    #[error(
        "{0}.\nLog in with `endpoint login`, or set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET to those of a \
         registered client."
    )]
    LoginRequired(String),
    /// Somebody else logged in than before.
    #[error(
        "Detected a change in identity associated with the token data: it was {stored}, and is {new}. `endpoint logout` \
         makes room for another identity."
    )]
    IdentityMismatch {
        /// Whose tokens are stored.
        stored: String,
        /// Who logged in.
        new: String,
    },
    /// Globus Auth refused.
    #[error("An Auth API error occurred.\nHTTP status: {status}\ncode: {code}\nmessage: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The machine's word for it.
        code: String,
        /// The sentence that came with it.
        message: String,
    },
    /// Globus Auth could not be reached.
    #[error("{url} can not be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what Globus Auth answers.
    #[error("{url} gave an answer that is not understood: {reason}")]
    Answer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl AuthError {
    /// Whether the same call may succeed later, with the same credentials: the service is away or in trouble.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Credentials(_)
            | Self::Storage(_)
            | Self::LoginRequired(_)
            | Self::IdentityMismatch { .. }
            | Self::Answer { .. } => false,
        }
    }

    /// Whether a person has to log in again.
    #[must_use]
    pub fn wants_login(&self) -> bool {
        match self {
            Self::LoginRequired(_) => true,
            Self::Refused { status, code, .. } => *status == 400 && code == "invalid_grant",
            Self::Credentials(_)
            | Self::Storage(_)
            | Self::IdentityMismatch { .. }
            | Self::Unreachable { .. }
            | Self::Answer { .. } => false,
        }
    }
}
