//! The endpoint's configuration as plain typed values.

/// The configuration of one user endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct UserEndpointConfig {}
