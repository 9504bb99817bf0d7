//! What is kept, by name: files of the folder, and keys of the Secret.

/// What the keys of user endpoints begin with; their ids follow.
const USER_ENDPOINT: &str = "user_endpoint.";

pub(super) const TOKEN_KEY: &str = "token_key";
pub(super) const AUTHORITY_KEY: &str = "link_authority.pem";
pub(super) const EPOCH: &str = "epoch";
pub(super) const REGISTRATION: &str = "registration";
pub(super) const TOKENS: &str = "tokens";
pub(super) const STOPPED: &str = "stopped";
pub(super) const ENDPOINT: &str = "endpoint.json";

/// The key of a user endpoint.
pub(super) fn user_endpoint(id: impl std::fmt::Display) -> String {
    format!("{USER_ENDPOINT}{id}")
}

/// The id of the user endpoint whose key it is, if it is such a key.
pub(super) fn user_endpoint_id(key: &str) -> Option<&str> {
    key.strip_prefix(USER_ENDPOINT)
}
