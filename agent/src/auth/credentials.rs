//! Which identity the endpoint has: where credentials are looked for, and which of them count.
//!
//! In this order: a client's id and secret in the credentials folder, a `storage.db` there, a client's id and secret in
//! the environment, and the `storage.db` in the folder that holds all endpoints. They are looked for each time that they
//! are needed, so that what is changed in a file counts from then on.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::storage::{Storage, StorageError};

const ID: &str = "GLOBUS_COMPUTE_CLIENT_ID";
const SECRET: &str = "GLOBUS_COMPUTE_CLIENT_SECRET";
// The names up to 4.5; they were deprecated in 2.18.
const OLD_ID: &str = "FUNCX_SDK_CLIENT_ID";
const OLD_SECRET: &str = "FUNCX_SDK_CLIENT_SECRET";
const STORAGE: &str = "storage.db";

/// The client in whose name people log in, if no other is named: the one of Globus Compute's own programs.
const NATIVE_CLIENT_ID: &str = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c";

/// Who the endpoint is to the service.
#[derive(Debug, Clone)]
pub(super) enum Login {
    /// A confidential client, by its id and secret.
    Client(ClientCredentials),
    /// A person, by tokens that a login brought.
    User(UserLogin),
}

/// The id and secret of a confidential client.
#[derive(Debug, Clone)]
pub(super) struct ClientCredentials {
    pub(super) id: String,
    pub(super) secret: SecretString,
}

/// Where the tokens of a person are.
#[derive(Debug, Clone)]
pub(super) struct UserLogin {
    /// The native client that the login was made with.
    pub(super) client_id: String,
    pub(super) storage: Storage,
}

/// What was found, and by what it is known from what is found later.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) login: Login,
    /// A hash of what counts. It is the same for as long as it is the same credentials; that a person's own
    /// `storage.db` has other tokens by now is no change.
    pub(super) fingerprint: Fingerprint,
    /// What is to be said about it.
    pub(super) remarks: Vec<String>,
}

/// A hash of credentials, in hexadecimal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(pub(super) String);

/// Why it is not known who the endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Half of a pair is missing.
    #[error(
        "Both {id} and {secret} must be set to use a client identity. Either set both environment variables, or unset them \
         to use a normal login. ({missing} must be set, because {present} is.)"
    )]
    Half {
        /// The name of the client's id.
        id: &'static str,
        /// The name of its secret.
        secret: &'static str,
        /// Which is set.
        present: &'static str,
        /// Which is not.
        missing: &'static str,
    },
    /// A file of the credentials folder can not be read.
    #[error("the credentials in {path} can not be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where credentials are looked for.
#[derive(Debug)]
pub struct Credentials {
    /// The variables of the process, as they were when it started.
    variables: Vec<(&'static str, SecretString)>,
    folder: Option<PathBuf>,
    storage: PathBuf,
    environment: String,
}

impl Credentials {
    /// Will look into the environment, the folder that `WAYPOST_CREDENTIALS_DIR` names, and the `storage.db` in `base`,
    /// the folder that holds all endpoints. `environment` is the name of the services in namespaces, such as
    /// `production`.
    #[must_use]
    pub fn new(base: &Path, environment: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variables = [ID, SECRET, OLD_ID, OLD_SECRET]
            .into_iter()
            .filter_map(|name| Some((name, SecretString::from(variable(name)?))))
            .filter(|(_, value)| !value.expose_secret().is_empty())
            .collect();
        Self {
            variables,
            folder: variable("WAYPOST_CREDENTIALS_DIR")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            storage: base.join(STORAGE),
            environment: environment.to_owned(),
        }
    }

    /// The folders in which something may change.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let base = self.storage.parent().map(Path::to_owned);
        self.folder.iter().cloned().chain(base).collect()
    }

    /// Whether they come from a folder that somebody else fills, such as a mounted Secret.
    #[must_use]
    pub fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// Who the endpoint is now.
    pub(super) fn find(&self) -> Result<Found, CredentialsError> {
        let mut values = Vec::new();
        for name in [ID, SECRET, OLD_ID, OLD_SECRET] {
            values.extend(self.in_folder(name)?.map(|value| (name, value)));
        }
        let storage = self.folder.as_ref().map(|folder| folder.join(STORAGE));
        let mounted = storage.filter(|path| path.exists());
        // A secret alone in the folder, and its id in the environment, are a pair; a login in the folder goes before
        // what is in the environment.
        if !values.is_empty() || mounted.is_none() {
            for (name, value) in &self.variables {
                if values.iter().all(|(present, _)| present != name) {
                    values.push((name, value.clone()));
                }
            }
        }
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        let (id_name, secret_name) = if value(ID).is_none() && value(SECRET).is_none() {
            (OLD_ID, OLD_SECRET)
        } else {
            (ID, SECRET)
        };
        let half = |present, missing| CredentialsError::Half {
            id: id_name,
            secret: secret_name,
            present,
            missing,
        };
        match (value(id_name), value(secret_name)) {
            (Some(id), Some(secret)) => Ok(client(id_name, id.expose_secret(), secret)),
            (None, Some(_)) => Err(half(secret_name, id_name)),
            (Some(_), None) if id_name == OLD_ID => Err(half(id_name, secret_name)),
            // Of the newer family the id alone is the native client that people log in with.
            (id, None) => {
                let client_id = id.map_or(NATIVE_CLIENT_ID, |id| id.expose_secret());
                self.user(client_id, mounted)
            }
        }
    }

    fn user(&self, client_id: &str, mounted: Option<PathBuf>) -> Result<Found, CredentialsError> {
        let mut hash = Sha256::new();
        let storage = match mounted {
            Some(path) => Storage::mounted(path),
            None => Storage::at(self.storage.clone()),
        };
        if storage.is_mounted() {
            hash.update(storage.content().map_err(|error| match error {
                StorageError::File { path, reason, .. } => CredentialsError::File { path, reason },
                other @ (StorageError::Mode { .. } | StorageError::Mounted(_)) => CredentialsError::File {
                    path: storage.path().to_owned(),
                    reason: other.to_string(),
                },
            })?);
        }
        hash.update(client_id);
        Ok(Found {
            login: Login::User(UserLogin {
                client_id: client_id.to_owned(),
                storage,
            }),
            fingerprint: Fingerprint::of(hash),
            remarks: Vec::new(),
        })
    }

    /// The namespace in which tokens for this login are stored.
    pub(super) fn namespace(&self, login: &Login) -> String {
        match login {
            Login::Client(client) => format!("clientprofile/{}/{}", self.environment, client.id),
            Login::User(_) => format!("user/{}", self.environment),
        }
    }

    /// The storage that the SDK would use.
    pub(super) fn own_storage(&self) -> Storage {
        Storage::at(self.storage.clone())
    }

    fn in_folder(&self, name: &str) -> Result<Option<SecretString>, CredentialsError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.join(name);
        let content = match std::fs::read(&path) {
            Ok(content) => Zeroizing::new(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(CredentialsError::File {
                    path,
                    reason: error.to_string(),
                });
            }
        };
        let text = std::str::from_utf8(&content).map_err(|_| CredentialsError::File {
            path,
            reason: "it is not text".to_owned(),
        })?;
        // An editor ends a file with a newline.
        let value = text.trim();
        Ok((!value.is_empty()).then(|| SecretString::from(value)))
    }
}

fn client(id_name: &'static str, id: &str, secret: &SecretString) -> Found {
    let mut remarks = Vec::new();
    if id_name == OLD_ID {
        remarks.push(format!(
            "{OLD_ID} and {OLD_SECRET} are deprecated; use {ID} and {SECRET} instead"
        ));
    }
    if uuid::Uuid::try_parse(id).is_err() {
        remarks.push(format!(
            "VERY LIKELY INVALID CLIENT ID: {id_name} is not a UUID (did you copy the username and not the id?)"
        ));
    }
    let mut hash = Sha256::new();
    hash.update(id);
    hash.update([0]);
    hash.update(secret.expose_secret());
    Found {
        login: Login::Client(ClientCredentials {
            id: id.to_owned(),
            secret: secret.clone(),
        }),
        fingerprint: Fingerprint::of(hash),
        remarks,
    }
}

impl Fingerprint {
    fn of(hash: Sha256) -> Self {
        let mut bytes = hash.finalize();
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.as_mut_slice().zeroize();
        Self(text)
    }
}

impl UserLogin {
    /// How a person is told where the login is.
    pub(super) fn place(&self) -> String {
        self.storage.path().display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn credentials(base: &Path, variables: &[(&str, &str)]) -> Credentials {
        Credentials::new(base, "production", |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn found(variables: &[(&str, &str)]) -> Result<Found, CredentialsError> {
        credentials(Path::new("/nowhere"), variables).find()
    }

    fn client_of(found: &Found) -> &ClientCredentials {
        match &found.login {
            Login::Client(client) => client,
            Login::User(_) => panic!("it is a user's"),
        }
    }

    fn user_of(found: &Found) -> &UserLogin {
        match &found.login {
            Login::User(user) => user,
            Login::Client(_) => panic!("it is a client's"),
        }
    }

    #[test]
    fn half_of_a_pair_is_refused_and_named() {
        for (present, missing) in [(SECRET, ID), (OLD_ID, OLD_SECRET), (OLD_SECRET, OLD_ID)] {
            let error = found(&[(present, "x")]).unwrap_err();
            assert!(
                matches!(&error, CredentialsError::Half { present: named, missing: lacking, .. }
                    if *named == present && *lacking == missing),
                "{error}"
            );
            let text = error.to_string();
            assert!(
                text.starts_with("Both ") && text.contains("to use a normal login"),
                "{text}"
            );
        }
    }

    #[test]
    fn without_a_secret_it_is_a_person_s_login() {
        for variables in [&[][..], &[(ID, ""), (OLD_ID, "")][..]] {
            assert_eq!(user_of(&found(variables).unwrap()).client_id, NATIVE_CLIENT_ID);
        }
        assert_eq!(user_of(&found(&[(ID, "own")]).unwrap()).client_id, "own");
    }

    #[test]
    fn the_new_names_go_before_the_old_and_the_old_are_deprecated() {
        let both = found(&[(ID, "new"), (SECRET, "s"), (OLD_ID, "old"), (OLD_SECRET, "o")]).unwrap();
        assert_eq!(client_of(&both).id, "new");
        let id = "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43";
        assert!(found(&[(ID, id), (SECRET, "s")]).unwrap().remarks.is_empty());
        let old = found(&[(OLD_ID, id), (OLD_SECRET, "o")]).unwrap();
        assert_eq!(client_of(&old).id, id);
        assert!(old.remarks[0].contains("deprecated"), "{:?}", old.remarks);
        let named = found(&[(ID, "me@example.org"), (SECRET, "s")]).unwrap();
        assert!(named.remarks[0].starts_with("VERY LIKELY INVALID CLIENT ID"));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let credentials = credentials(Path::new("/nowhere"), &[(ID, "new"), (SECRET, "hidden")]);
        let found = credentials.find().unwrap();
        assert!(!format!("{credentials:?} {found:?}").contains("hidden"));
    }

    #[test]
    fn the_folder_goes_before_the_environment_and_counts_as_it_is_now() {
        let (base, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = folder.path().display().to_string();
        let credentials = credentials(
            base.path(),
            &[
                ("WAYPOST_CREDENTIALS_DIR", &place),
                (ID, "of-environment"),
                (SECRET, "s"),
            ],
        );
        let first = credentials.find().unwrap();
        assert_eq!(client_of(&first).id, "of-environment", "an empty folder is none");
        fs::write(folder.path().join(STORAGE), "one").unwrap();
        let login = credentials.find().unwrap();
        assert!(user_of(&login).storage.is_mounted());
        assert_eq!(user_of(&login).client_id, NATIVE_CLIENT_ID);
        fs::write(folder.path().join(STORAGE), "two").unwrap();
        assert_ne!(credentials.find().unwrap().fingerprint, login.fingerprint);
        fs::write(folder.path().join(SECRET), "rotated\n").unwrap();
        let rotated = credentials.find().unwrap();
        assert_eq!(client_of(&rotated).id, "of-environment");
        assert_eq!(client_of(&rotated).secret.expose_secret(), "rotated");
        assert_ne!(rotated.fingerprint, first.fingerprint);
        fs::write(folder.path().join(ID), "of-folder\n").unwrap();
        assert_eq!(client_of(&credentials.find().unwrap()).id, "of-folder");
    }

    #[test]
    fn namespaces_are_those_of_the_sdk() {
        let credentials = credentials(Path::new("/nowhere"), &[(ID, "abc"), (SECRET, "s")]);
        let client = credentials.find().unwrap();
        assert_eq!(credentials.namespace(&client.login), "clientprofile/production/abc");
        let user = found(&[]).unwrap();
        assert_eq!(credentials.namespace(&user.login), "user/production");
    }
}
