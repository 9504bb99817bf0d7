use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use waypost_link::TokenKey;
use waypost_link::tls::Authority;
use waypost_protocol::AmqpCredentials;

use super::folder::FolderMedium;
use super::keys::{self, AUTHORITY_KEY, ENDPOINT, EPOCH, REGISTRATION, STOPPED, TOKEN_KEY, TOKENS};
use super::pack::{pack, unpack};
use super::secret::{Expected, SecretMedium};
use super::{StateError, files};
use crate::auth::TokenKeeper;
use crate::service::RegistrationReply;

/// What outlives the process.
#[derive(Debug)]
pub struct StateStore {
    /// `endpoint.json` in the endpoint's folder, by which commands know the endpoint's id.
    endpoint_json: PathBuf,
    medium: Medium,
}

#[derive(Debug)]
enum Medium {
    Folder(FolderMedium),
    Secret(Box<SecretMedium>),
}

/// The keys that workers and agent know each other by. Made once, then kept.
#[derive(Debug)]
pub struct LinkKeys {
    /// Tokens of blocks are derived from it.
    pub token_key: SecretSlice<u8>,
    /// The certificate authority's private key, in PEM form.
    pub authority_key: SecretString,
}

/// A user endpoint that runs, and is to run again after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedUserEndpoint {
    /// Its name: `uep.<endpoint id>.<user endpoint id>`.
    pub name: String,
    /// What the submitter asked for.
    pub asked: Asked,
    /// What was rendered of that: the configuration.
    pub config: String,
    /// Environment variables for its workers.
    pub environment: BTreeMap<String, String>,
    /// Its id and connections.
    pub credentials: AmqpCredentials,
    /// The identity for which it runs.
    pub identity: Uuid,
    /// That identity's name, for people.
    pub username: String,
}

/// What a user endpoint's configuration is rendered from, beside the endpoint's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The submitter's options as JSON text, in their order.
    pub user_options: String,
    /// What the submitter's SDK says of itself, as JSON text.
    pub user_runtime: String,
    /// The identity of the endpoint's owner that the submitter has, too.
    pub matched: Uuid,
}

/// What the service answered last, so that the endpoint can start while the service is away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedRegistration {
    /// The answer itself.
    pub reply: RegistrationReply,
    /// The identities of the owner, for whom user endpoints run.
    pub owner: BTreeSet<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct EndpointInfo {
    endpoint_id: Uuid,
}

impl StateStore {
    /// The state of the endpoint in `directory`, kept there.
    ///
    /// # Errors
    /// [`StateError::File`] if its folder can not be made.
    pub fn in_folder(directory: &Path) -> Result<Self, StateError> {
        Ok(Self {
            endpoint_json: directory.join(ENDPOINT),
            medium: Medium::Folder(FolderMedium::open(directory)?),
        })
    }

    /// The state of the endpoint in `directory`, kept in a Secret.
    #[must_use]
    pub fn in_secret(directory: &Path, secret: SecretMedium) -> Self {
        Self {
            endpoint_json: directory.join(ENDPOINT),
            medium: Medium::Secret(Box::new(secret)),
        }
    }

    /// The endpoint's id, if it was registered before. A pod's folder is new, and learns it from the Secret.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn endpoint_id(&self) -> Result<Option<Uuid>, StateError> {
        let content = match &self.medium {
            Medium::Folder(_) => files::read(&self.endpoint_json).map_err(|source| self.file("read", source))?,
            Medium::Secret(secret) => secret.read(ENDPOINT).await?,
        };
        let Some(content) = content else { return Ok(None) };
        let info: EndpointInfo =
            serde_json::from_slice(&content).map_err(|_| StateError::Damaged(self.place(ENDPOINT)))?;
        if matches!(self.medium, Medium::Secret(_)) {
            files::replace(&self.endpoint_json, &content).map_err(|source| self.file("written", source))?;
        }
        Ok(Some(info.endpoint_id))
    }

    /// Saves the endpoint's id, also as `endpoint.json`.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn save_endpoint_id(&self, endpoint_id: Uuid) -> Result<(), StateError> {
        let content = serde_json::json!({ "endpoint_id": endpoint_id }).to_string();
        if let Medium::Secret(secret) = &self.medium {
            secret
                .write(ENDPOINT, Expected::Anything, Some(content.as_bytes()))
                .await?;
        }
        files::replace(&self.endpoint_json, content.as_bytes()).map_err(|source| self.file("written", source))
    }

    /// The keys of the link; made now if there are none.
    ///
    /// # Errors
    /// [`StateError`]. Damaged keys are not replaced: workers that run know the old ones.
    pub async fn link_keys(&self) -> Result<LinkKeys, StateError> {
        let token_key = self
            .made_once(TOKEN_KEY, || {
                TokenKey::generate()
                    .map(|key| key.reveal().to_vec())
                    .map_err(|error| StateError::Keys(error.to_string()))
            })
            .await?;
        if token_key.len() != 32 {
            return Err(StateError::Damaged(self.place(TOKEN_KEY)));
        }
        let authority_key = self
            .made_once(AUTHORITY_KEY, || {
                Authority::generate()
                    .map(|authority| authority.reveal_key_pem().into_bytes())
                    .map_err(|error| StateError::Keys(error.to_string()))
            })
            .await?;
        let authority_key = String::from_utf8(authority_key)
            .ok()
            .filter(|pem| Authority::from_key_pem(pem).is_ok())
            .ok_or_else(|| StateError::Damaged(self.place(AUTHORITY_KEY)))?;
        Ok(LinkKeys {
            token_key: SecretSlice::from(token_key),
            authority_key: SecretString::from(authority_key),
        })
    }

    /// Raises the epoch and gives the new one: 1 at the first start. No two agents get the same.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn next_epoch(&self) -> Result<u64, StateError> {
        loop {
            let last = self.read(EPOCH).await?;
            let epoch: u64 = match &last {
                None => 0,
                Some(bytes) => std::str::from_utf8(bytes)
                    .ok()
                    .and_then(|text| text.trim().parse().ok())
                    .ok_or_else(|| StateError::Damaged(self.place(EPOCH)))?,
            };
            let next = epoch + 1;
            let expected = Expected::Exactly(last.as_deref());
            if self.write(EPOCH, expected, Some(next.to_string().as_bytes())).await? {
                return Ok(next);
            }
        }
    }

    /// Saves a user endpoint, in place of what was saved under its id.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Full`] if a Secret has no room for it.
    pub async fn save_user_endpoint(&self, saved: &SavedUserEndpoint) -> Result<(), StateError> {
        self.save(&keys::user_endpoint(saved.credentials.endpoint_id), saved)
            .await
    }

    /// Forgets a user endpoint, unless another agent has saved it anew.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remove_user_endpoint(&self, saved: &SavedUserEndpoint) -> Result<(), StateError> {
        let key = keys::user_endpoint(saved.credentials.endpoint_id);
        let Some(kept) = self.read(&key).await? else {
            return Ok(());
        };
        // The lock on a folder keeps other agents away; a Secret may be another's by now.
        let expected = match &self.medium {
            Medium::Folder(_) => Expected::Anything,
            Medium::Secret(_) => Expected::Exactly(Some(&kept)),
        };
        let ours = match (&self.medium, self.decode::<SavedUserEndpoint>(&key, &kept)) {
            (Medium::Secret(_), Ok(kept)) => kept == *saved,
            (Medium::Secret(_), Err(_)) | (Medium::Folder(_), _) => true,
        };
        if !ours || !self.write(&key, expected, None).await? {
            tracing::info!(
                user_endpoint = saved.name,
                "another agent has saved the user endpoint since; it stays in the state"
            );
        }
        Ok(())
    }

    /// The saved user endpoints, and what is wrong with those that can not be read.
    ///
    /// # Errors
    /// [`StateError`] if nothing can be read at all.
    pub async fn user_endpoints(&self) -> Result<(Vec<SavedUserEndpoint>, Vec<StateError>), StateError> {
        let keys = match &self.medium {
            Medium::Folder(folder) => folder.user_endpoints()?,
            Medium::Secret(secret) => secret.user_endpoints().await?,
        };
        let (mut saved, mut problems) = (Vec::new(), Vec::new());
        for key in keys {
            match self.load::<SavedUserEndpoint>(&key).await {
                Ok(found) => saved.extend(found),
                Err(error) => problems.push(error),
            }
        }
        saved.sort_by(|left, right| left.name.cmp(&right.name));
        Ok((saved, problems))
    }

    /// Saves what the service answered.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn save_registration(&self, registration: &SavedRegistration) -> Result<(), StateError> {
        self.save(REGISTRATION, registration).await
    }

    /// What the service answered last, if it was saved.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn registration(&self) -> Result<Option<SavedRegistration>, StateError> {
        self.load(REGISTRATION).await
    }

    /// Notes whether the endpoint was stopped, and is to stay so when its pod starts again.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn set_stopped(&self, stopped: bool) -> Result<(), StateError> {
        self.write(STOPPED, Expected::Anything, stopped.then_some(&b"true"[..]))
            .await
            .map(drop)
    }

    /// Whether the endpoint was stopped.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_stopped(&self) -> Result<bool, StateError> {
        Ok(self.read(STOPPED).await?.is_some())
    }

    /// A value that is made if it is not there. If another agent is faster, its value counts.
    async fn made_once(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Vec<u8>, StateError>,
    ) -> Result<Vec<u8>, StateError> {
        if let Some(value) = self.read(key).await? {
            return Ok(value);
        }
        let value = make()?;
        if self.write(key, Expected::Exactly(None), Some(&value)).await? {
            return Ok(value);
        }
        self.read(key)
            .await?
            .ok_or_else(|| StateError::Damaged(self.place(key)))
    }

    async fn save<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let content = self.packed(value);
        self.write(key, Expected::Anything, Some(&content)).await.map(drop)
    }

    async fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        match self.read(key).await? {
            Some(content) => self.decode(key, &content).map(Some),
            None => Ok(None),
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, content: &[u8]) -> Result<T, StateError> {
        unpack(content)
            .and_then(|content| serde_json::from_slice(&content).ok())
            .ok_or_else(|| StateError::Damaged(self.place(key)))
    }

    /// As it is kept: readable on a disk, small in a Secret.
    fn packed<T: Serialize>(&self, value: &T) -> Vec<u8> {
        // Only a map whose keys are not text could fail, and no saved type has one.
        let content = serde_json::to_vec(value).unwrap_or_default();
        match &self.medium {
            Medium::Folder(_) => content,
            Medium::Secret(_) => pack(&content),
        }
    }

    async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        match &self.medium {
            Medium::Folder(folder) => folder.read(key),
            Medium::Secret(secret) => secret.read(key).await,
        }
    }

    async fn write(&self, key: &str, expected: Expected<'_>, content: Option<&[u8]>) -> Result<bool, StateError> {
        match &self.medium {
            Medium::Folder(folder) => {
                if let Expected::Exactly(value) = expected
                    && folder.read(key)?.as_deref() != value
                {
                    return Ok(false);
                }
                folder.write(key, content).map(|()| true)
            }
            Medium::Secret(secret) => secret.write(key, expected, content).await,
        }
    }

    /// Where a key is kept, for a person.
    fn place(&self, key: &str) -> String {
        match &self.medium {
            Medium::Folder(_) if key == ENDPOINT => self.endpoint_json.display().to_string(),
            Medium::Folder(folder) => folder.path(key).display().to_string(),
            Medium::Secret(secret) => format!("{} (key {key})", secret.place()),
        }
    }

    fn file(&self, verb: &'static str, source: std::io::Error) -> StateError {
        StateError::File {
            path: self.endpoint_json.clone(),
            verb,
            source,
        }
    }
}

impl TokenKeeper for StateStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<Zeroizing<Vec<u8>>>, String>> {
        Box::pin(async {
            let content = self.read(TOKENS).await.map_err(|error| error.to_string())?;
            Ok(content.map(Zeroizing::new))
        })
    }

    fn save<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let written = self.write(TOKENS, Expected::Anything, Some(content)).await;
            written.map(drop).map_err(|error| error.to_string())
        })
    }

    fn forget<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let removed = self.write(TOKENS, Expected::Exactly(Some(content)), None).await;
            removed.map(drop).map_err(|error| error.to_string())
        })
    }
}

impl LinkKeys {
    /// The certificate authority of the link.
    ///
    /// # Errors
    /// [`StateError::Keys`] if the key is not one.
    pub fn authority(&self) -> Result<Authority, StateError> {
        Authority::from_key_pem(self.authority_key.expose_secret()).map_err(|error| StateError::Keys(error.to_string()))
    }
}
