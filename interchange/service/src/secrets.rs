//! Random secrets, what is kept of them, and the server key from which broker passwords and other keys are derived.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};

/// Why a key or secret could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The key file could not be read or made.
    #[error("the key file {path} could not be read or made: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file holds too little.
    #[error(
        "the key file {path} must hold at least 32 characters; remove it to have a new one made (endpoints then register again)"
    )]
    Short {
        /// Which file.
        path: PathBuf,
    },
    /// A secret could not be hashed.
    #[error("the secret could not be hashed: {0}")]
    Hash(String),
}

/// A new random secret of 256 bits, as URL-safe text.
///
/// # Errors
/// [`KeyError::Random`].
pub(crate) fn new_secret() -> Result<SecretString, KeyError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes)))
}

/// The argon2id hash of a client's secret or a user's password, in PHC form.
///
/// # Errors
/// [`KeyError::Hash`].
pub(crate) fn hash_secret(secret: &SecretString) -> Result<String, KeyError> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(secret.expose_secret().as_bytes())
        .map_err(|error| KeyError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether `secret` is the one that was hashed.
pub(crate) fn verify_secret(secret: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
}

/// What is kept of a token or code. It is random, so a plain hash is enough.
pub(crate) fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The key from which broker passwords and other keys are derived; the same in every replica.
pub(crate) struct ServerKey(SecretBox<Vec<u8>>);

impl ServerKey {
    /// Reads the key file, or makes one that only its owner can read.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let new_key = new_secret()?;
        let file_error = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            // Written beside it and then linked: a replica that starts at the same time sees a whole key or none.
            let mut beside = path.as_os_str().to_owned();
            beside.push(format!(".{}", std::process::id()));
            let beside = PathBuf::from(beside);
            let written = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)
                .and_then(|mut file| {
                    file.write_all(new_key.expose_secret().as_bytes())?;
                    file.sync_all()?;
                    match std::fs::hard_link(&beside, path) {
                        // The other replica was first: its key is the key.
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                        linked => linked,
                    }
                });
            let _ = std::fs::remove_file(&beside);
            written.map_err(file_error)?;
        }
        let key = std::fs::read(path).map_err(file_error)?.trim_ascii().to_vec();
        if key.len() < 32 {
            return Err(KeyError::Short { path: path.to_owned() });
        }
        Ok(Self(SecretBox::new(Box::new(key))))
    }

    /// A key for one purpose. It says nothing about the server key, or about that for another purpose.
    pub(crate) fn derive(&self, purpose: &str) -> DerivedKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(b"waypost derived key\0");
        mac.update(purpose.as_bytes());
        DerivedKey(SecretBox::new(Box::new(mac.finalize().into_bytes().to_vec())))
    }

    /// The broker password of `user`. It changes with `rotation` and with nothing else.
    pub(crate) fn broker_password(&self, user: &str, rotation: i64) -> SecretString {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(b"waypost broker password\0");
        mac.update(user.as_bytes());
        mac.update(b"\0");
        mac.update(&rotation.to_be_bytes());
        SecretString::from(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

/// A key of 256 bits that every replica derives alike.
pub(crate) struct DerivedKey(SecretBox<Vec<u8>>);

impl DerivedKey {
    /// A proof that somebody with this key has seen the text, as URL-safe text.
    pub(crate) fn authenticate(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Encrypts; `context` must be the same when it is opened.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub(crate) fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0_u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(KeyError::Random)?;
        let mut sealed = plain.to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut sealed,
            )
            .expect("a few kilobytes can be encrypted");
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Self::seal`] gave. None if it was another key or context, or the text was changed.
    pub(crate) fn open(&self, context: &str, sealed: &[u8]) -> Option<SecretBox<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = SecretBox::new(Box::new(sealed.to_vec()));
        let length = self
            .cipher()
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context.as_bytes()),
                buffer.expose_secret_mut(),
            )
            .ok()?
            .len();
        buffer.expose_secret_mut().truncate(length);
        Some(buffer)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.0.expose_secret()).expect("it has 256 bits");
        LessSafeKey::new(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_verified_by_its_hash_and_no_other_is() {
        let secret = new_secret().unwrap();
        let hash = hash_secret(&secret).unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify_secret(secret.expose_secret(), &hash));
        assert!(!verify_secret("another", &hash));
        assert!(!verify_secret(secret.expose_secret(), "not a hash"));
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_in_the_same_context_only() {
        let directory = tempfile::tempdir().unwrap();
        let server = ServerKey::load_or_create(&directory.path().join("key")).unwrap();
        let key = server.derive("a");
        let sealed = key.seal("context", b"plain").unwrap();
        assert_eq!(
            server.derive("a").open("context", &sealed).unwrap().expose_secret(),
            b"plain"
        );
        assert!(key.open("another", &sealed).is_none());
        assert!(server.derive("b").open("context", &sealed).is_none());
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(key.open("context", &changed).is_none());
        assert!(key.open("context", &sealed[..5]).is_none());
        assert_ne!(sealed, key.seal("context", b"plain").unwrap());
    }

    #[test]
    fn every_replica_derives_the_same_password_until_it_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let one = ServerKey::load_or_create(&file).unwrap();
        let other = ServerKey::load_or_create(&file).unwrap();
        let password = |key: &ServerKey, user, rotation| key.broker_password(user, rotation).expose_secret().to_owned();
        assert_eq!(password(&one, "a", 0), password(&other, "a", 0));
        assert_ne!(password(&one, "a", 0), password(&one, "a", 1));
        assert_ne!(password(&one, "a", 0), password(&one, "b", 0));
    }
}
