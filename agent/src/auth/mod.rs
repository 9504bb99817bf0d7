//! A valid bearer token: from client credentials, or from the login of a person.
//!
//! | file | its one job |
//! |---|---|
//! | `credentials` | which identity: where credentials are looked for, and which of them count |
//! | `storage`, `token_data` | `storage.db`, which is shared with the Globus SDK |
//! | `api`, `id_token` | calls to Globus Auth, and who it says has logged in |
//! | `tokens` | a token that can be used now |
//! | `renewal`, `watch` | tokens are renewed, and changed credentials taken up, while the endpoint runs |
//! | `login`, `requirements` | logging in and out, and in as a service wants it |
//! | `health` | what is shown of the credentials |
//!
//! Nothing here calls the compute service.

mod api;
mod credentials;
mod error;
mod health;
mod id_token;
mod login;
mod renewal;
mod requirements;
mod scope;
mod storage;
mod token_data;
mod tokens;
mod watch;

pub use api::{Identities, Linked, Profile};
pub use credentials::{Credentials, CredentialsError};
pub use error::AuthError;
pub use health::CredentialsStatus;
pub use login::LoginFlow;
pub use renewal::keep_fresh;
pub use requirements::LoginRequirements;
pub use scope::Scope;
pub use storage::StorageError;
pub use tokens::{TokenKeeper, Tokens};
