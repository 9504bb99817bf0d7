use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use waypost_link::TokenKey;
use waypost_link::tls::Authority;
use waypost_protocol::AmqpCredentials;

use super::files;

/// The folder store.
#[derive(Debug, Clone)]
pub struct StateStore {
    endpoint_json: PathBuf,
    folder: PathBuf,
}

/// Why the state can not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk does not do as told.
    #[error("the state file {path} can not be {verb}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        verb: &'static str,
        /// Why it was not.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("the state file {0} is damaged; restore it from a backup, or delete it and start again")]
    Damaged(PathBuf),
    /// No keys could be made.
    #[error("keys for the workers' link can not be made: {0}")]
    Keys(String),
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
    /// The rendered configuration.
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

impl StateStore {
    /// Opens the store of the endpoint in `directory`.
    ///
    /// # Errors
    /// [`StateError::File`] if its folder can not be made.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let folder = directory.join("state");
        let saved = folder.join("user_endpoints");
        files::make_folder(&saved).map_err(|source| StateError::File {
            path: saved,
            verb: "made",
            source,
        })?;
        Ok(Self {
            endpoint_json: directory.join("endpoint.json"),
            folder,
        })
    }

    /// Writes `endpoint.json`.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn save_endpoint_id(&self, id: Uuid) -> Result<(), StateError> {
        write(
            &self.endpoint_json,
            serde_json::json!({ "endpoint_id": id }).to_string().as_bytes(),
        )
    }

    /// The keys of the link; made now if there are none.
    ///
    /// # Errors
    /// [`StateError`]. Damaged keys are not replaced: workers that run know the old ones.
    pub fn link_keys(&self) -> Result<LinkKeys, StateError> {
        let token_path = self.folder.join("token_key");
        let token_key = match read(&token_path)? {
            Some(bytes) if bytes.len() == 32 => bytes,
            Some(_) => return Err(StateError::Damaged(token_path)),
            None => {
                let key = TokenKey::generate().map_err(|error| StateError::Keys(error.to_string()))?;
                write(&token_path, key.reveal())?;
                key.reveal().to_vec()
            }
        };
        let authority_path = self.folder.join("link_authority.pem");
        let authority_key = match read(&authority_path)? {
            Some(bytes) => String::from_utf8(bytes)
                .ok()
                .filter(|pem| Authority::from_key_pem(pem).is_ok())
                .ok_or(StateError::Damaged(authority_path))?,
            None => {
                let authority = Authority::generate().map_err(|error| StateError::Keys(error.to_string()))?;
                let pem = authority.reveal_key_pem();
                write(&authority_path, pem.as_bytes())?;
                pem
            }
        };
        Ok(LinkKeys {
            token_key: SecretSlice::from(token_key),
            authority_key: SecretString::from(authority_key),
        })
    }

    /// Raises the epoch and gives the new one: 1 at the first start.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_epoch(&self) -> Result<u64, StateError> {
        let path = self.folder.join("epoch");
        let last: u64 = match read(&path)? {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| StateError::Damaged(path.clone()))?,
        };
        let next = last + 1;
        write(&path, next.to_string().as_bytes())?;
        Ok(next)
    }

    /// Saves a user endpoint, in place of what was saved under its id.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn save_user_endpoint(&self, saved: &SavedUserEndpoint) -> Result<(), StateError> {
        let path = self.user_endpoint_file(saved.credentials.endpoint_id);
        let content = serde_json::to_vec(saved).map_err(|error| StateError::File {
            path: path.clone(),
            verb: "written",
            source: io::Error::other(error),
        })?;
        write(&path, &content)
    }

    /// Forgets a user endpoint.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn remove_user_endpoint(&self, id: Uuid) -> Result<(), StateError> {
        let path = self.user_endpoint_file(id);
        files::remove(&path).map_err(|source| StateError::File {
            path,
            verb: "removed",
            source,
        })
    }

    /// The saved user endpoints, and what is wrong with those that can not be read.
    ///
    /// # Errors
    /// [`StateError::File`] if the folder can not be read.
    pub fn user_endpoints(&self) -> Result<(Vec<SavedUserEndpoint>, Vec<StateError>), StateError> {
        let folder = self.folder.join("user_endpoints");
        let failed = |source| StateError::File {
            path: folder.clone(),
            verb: "read",
            source,
        };
        let (mut saved, mut problems) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                    Ok(user_endpoint) => saved.push(user_endpoint),
                    Err(_) => problems.push(StateError::Damaged(path)),
                },
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        saved.sort_by(|left: &SavedUserEndpoint, right| left.name.cmp(&right.name));
        Ok((saved, problems))
    }

    fn user_endpoint_file(&self, id: Uuid) -> PathBuf {
        self.folder.join("user_endpoints").join(format!("{id}.json"))
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

fn write(path: &Path, content: &[u8]) -> Result<(), StateError> {
    files::replace(path, content).map_err(|source| StateError::File {
        path: path.to_owned(),
        verb: "written",
        source,
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    files::read(path).map_err(|source| StateError::File {
        path: path.to_owned(),
        verb: "read",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use waypost_protocol::QueueInfo;

    use super::*;

    fn saved(number: u128) -> SavedUserEndpoint {
        let queue = QueueInfo {
            connection_url: "amqp://me:hidden-word@host/".to_owned(),
            queue: "q".to_owned(),
            exchange: None,
            queue_publish_kwargs: None,
        };
        let id = Uuid::from_u128(number);
        SavedUserEndpoint {
            name: format!("uep.{}.{id}", Uuid::nil()),
            config: "engine:\n".to_owned(),
            environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            credentials: AmqpCredentials {
                endpoint_id: id,
                task_queue_info: queue.clone(),
                result_queue_info: queue.clone(),
                heartbeat_queue_info: queue,
            },
            identity: Uuid::from_u128(9),
            username: "me@example.org".to_owned(),
        }
    }

    #[test]
    fn saved_user_endpoints_come_back_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path()).unwrap();
        store.save_user_endpoint(&saved(2)).unwrap();
        store.save_user_endpoint(&saved(1)).unwrap();
        let again = StateStore::open(folder.path()).unwrap();
        assert_eq!(again.user_endpoints().unwrap().0, vec![saved(1), saved(2)]);
        again.remove_user_endpoint(Uuid::from_u128(1)).unwrap();
        again.remove_user_endpoint(Uuid::from_u128(1)).unwrap();
        assert_eq!(again.user_endpoints().unwrap().0, vec![saved(2)]);
    }

    #[test]
    fn a_damaged_file_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path()).unwrap();
        store.save_user_endpoint(&saved(1)).unwrap();
        std::fs::write(folder.path().join("state/user_endpoints/x.json"), "{").unwrap();
        let (found, problems) = store.user_endpoints().unwrap();
        assert_eq!((found.len(), problems.len()), (1, 1));
    }

    #[test]
    fn keys_are_made_once_and_the_epoch_rises() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path()).unwrap();
        let first = store.link_keys().unwrap();
        let second = StateStore::open(folder.path()).unwrap().link_keys().unwrap();
        assert_eq!(first.token_key.expose_secret(), second.token_key.expose_secret());
        assert_eq!(
            first.authority().unwrap().reveal_key_pem(),
            second.authority().unwrap().reveal_key_pem()
        );
        assert_eq!((store.next_epoch().unwrap(), store.next_epoch().unwrap()), (1, 2));
    }

    #[test]
    fn only_the_owner_can_read_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path()).unwrap();
        store.save_user_endpoint(&saved(1)).unwrap();
        store.link_keys().unwrap();
        for file in [
            "token_key",
            "link_authority.pem",
            &format!("user_endpoints/{}.json", Uuid::from_u128(1)),
        ] {
            let mode = std::fs::metadata(folder.path().join("state").join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        assert!(!format!("{:?}", saved(1)).contains("hidden-word"));
    }
}
