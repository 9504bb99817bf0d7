//! Signs id_tokens (RS256), with one key that all replicas share.
//!
//! The key is made when it is first needed: that takes up to seconds, and where nobody signs in it never is. It is kept in
//! the store, encrypted by a key that is derived from the server key; a replica with another server key makes its own. The
//! public halves of all keys are published, so that what an older key signed can still be verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey as _, SecretDocument};
use rsa::rand_core::OsRng;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::clock;
use crate::secrets::{DerivedKey, KeyError, ServerKey};
use crate::store::{SigningKey, Store, StoreError};

/// Bits of a key: what RS256 needs at least, and what Globus Auth has.
const KEY_BITS: usize = 2048;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    /// The store's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The random numbers' fault.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No key could be made.
    #[error("no key to sign id_tokens with could be made: {0}")]
    Make(String),
    /// The key is damaged.
    #[error(
        "the key {id} of the table signing_keys, with which id_tokens are signed, cannot be decrypted: the row is damaged; delete it to have a new one made"
    )]
    Damaged {
        /// Its id.
        id: String,
    },
    /// The key is no key.
    #[error("the id_token could not be signed")]
    Sign,
}

/// Signs what the service says about users.
pub(crate) struct Signer {
    id: String,
    sealing: DerivedKey,
    key: OnceCell<RsaKeyPair>,
}

impl Signer {
    /// With the key that belongs to this server key, if there is one yet.
    ///
    /// # Errors
    /// [`SigningError`].
    pub(crate) async fn open(store: &Store, server_key: &ServerKey) -> Result<Self, SigningError> {
        let signer = Self {
            id: server_key.derive("id_token key id").authenticate(""),
            sealing: server_key.derive("id_token key"),
            key: OnceCell::new(),
        };
        let key = OnceCell::new_with(signer.find(store).await?);
        Ok(Self { key, ..signer })
    }

    async fn key(&self, store: &Store) -> Result<&RsaKeyPair, SigningError> {
        self.key
            .get_or_try_init(|| async {
                // Another replica may have been first, before or while this one makes its own: then its key is the key.
                if let Some(key) = self.find(store).await? {
                    return Ok(key);
                }
                self.make(store).await?;
                let made = self.find(store).await?;
                made.ok_or_else(|| SigningError::Damaged { id: self.id.clone() })
            })
            .await
    }

    async fn make(&self, store: &Store) -> Result<(), SigningError> {
        let pkcs8 = tokio::task::spawn_blocking(make)
            .await
            .map_err(|error| SigningError::Make(error.to_string()))??;
        let key = RsaKeyPair::from_pkcs8(pkcs8.as_bytes()).map_err(|error| SigningError::Make(error.to_string()))?;
        let made = SigningKey {
            public_key: public_key(&self.id, &key).to_string(),
            sealed: self.sealing.seal(&self.id, pkcs8.as_bytes())?,
            created_at: clock::now(),
            id: self.id.clone(),
        };
        Ok(store.add_signing_key(&made).await?)
    }

    async fn find(&self, store: &Store) -> Result<Option<RsaKeyPair>, SigningError> {
        let keys = store.signing_keys().await?;
        let Some(found) = keys.into_iter().find(|key| key.id == self.id) else {
            return Ok(None);
        };
        let damaged = || SigningError::Damaged { id: self.id.clone() };
        let pkcs8 = self.sealing.open(&found.id, &found.sealed).ok_or_else(damaged)?;
        let key = RsaKeyPair::from_pkcs8(pkcs8.expose_secret()).map_err(|_| damaged())?;
        Ok(Some(key))
    }

    /// A JSON Web Token of these claims, in compact form.
    ///
    /// # Errors
    /// [`SigningError`].
    pub(crate) async fn sign(&self, store: &Store, claims: &Value) -> Result<String, SigningError> {
        let key = self.key(store).await?;
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            token.as_bytes(),
            &mut signature,
        )
        .map_err(|_| SigningError::Sign)?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The JSON Web Key Set that verifies. This key is its first, which is the one that Globus's SDK looks at.
    ///
    /// # Errors
    /// [`SigningError`].
    pub(crate) async fn key_set(&self, store: &Store) -> Result<Value, SigningError> {
        let mut keys = vec![public_key(&self.id, self.key(store).await?)];
        for other in store.signing_keys().await? {
            if other.id != self.id {
                keys.push(
                    serde_json::from_str(&other.public_key).map_err(|_| StoreError::Unreadable {
                        what: "signing_keys.public_key",
                        value: other.public_key.clone(),
                    })?,
                );
            }
        }
        Ok(json!({ "keys": keys }))
    }
}

/// A new private key, in PKCS #8. Only made here: signing is done by ring, which takes as long for every key.
fn make() -> Result<SecretDocument, SigningError> {
    let failed = |error: &dyn std::fmt::Display| SigningError::Make(error.to_string());
    let key = rsa::RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(|error| failed(&error))?;
    key.to_pkcs8_der().map_err(|error| failed(&error))
}

fn public_key(id: &str, key: &KeyPair) -> Value {
    let parts = PublicKeyComponents::<Vec<u8>>::from(key.public());
    json!({
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": id,
        "n": URL_SAFE_NO_PAD.encode(parts.n),
        "e": URL_SAFE_NO_PAD.encode(parts.e),
    })
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;

    fn decode(part: &Value) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(part.as_str().unwrap()).unwrap()
    }

    fn is_signed_by(token: &str, key: &Value) -> bool {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let public = RsaPublicKeyComponents {
            n: decode(&key["n"]),
            e: decode(&key["e"]),
        };
        public
            .verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message.as_bytes(),
                &URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .is_ok()
    }

    #[tokio::test]
    async fn every_replica_signs_by_one_key_and_another_server_key_has_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        let store = Store::open(&url).await.unwrap();
        let server_key = |name: &str| ServerKey::load_or_create(&directory.path().join(name)).unwrap();
        let one = Signer::open(&store, &server_key("a")).await.unwrap();
        let replica = Signer::open(&store, &server_key("a")).await.unwrap();
        assert!(store.signing_keys().await.unwrap().is_empty(), "none is needed yet");
        let token = one.sign(&store, &json!({"sub": "s"})).await.unwrap();
        assert!(is_signed_by(&token, &replica.key_set(&store).await.unwrap()["keys"][0]));
        let other = Signer::open(&store, &server_key("b")).await.unwrap();
        let keys = other.key_set(&store).await.unwrap();
        assert!(!is_signed_by(&token, &keys["keys"][0]) && is_signed_by(&token, &keys["keys"][1]));
        for key in store.signing_keys().await.unwrap() {
            assert!(!key.public_key.contains("\"d\""), "a private key is published");
        }
    }
}
