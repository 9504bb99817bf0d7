//! Block tokens: what a worker shows to be taken for its block.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

/// The key from which an endpoint derives its blocks' tokens. Made once, kept in the endpoint's state.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

/// HMAC-SHA256 over endpoint, user endpoint and block, in hexadecimal. Its text is a secret: it is only to be had by
/// [`BlockToken::reveal`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockToken(String);

impl TokenKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// A key that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, to keep them. A secret.
    #[must_use]
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// The token of a block.
    #[must_use]
    pub fn token(&self, endpoint: Uuid, user_endpoint: Uuid, block: &str) -> BlockToken {
        let mac = self.mac(endpoint, user_endpoint, block).finalize().into_bytes();
        BlockToken(mac.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// True if the token is that block's. Takes the same time for every wrong token of the right length.
    #[must_use]
    pub fn verify(&self, endpoint: Uuid, user_endpoint: Uuid, block: &str, token: &BlockToken) -> bool {
        let Some(shown) = from_hexadecimal(&token.0) else {
            return false;
        };
        self.mac(endpoint, user_endpoint, block).verify_slice(&shown).is_ok()
    }

    fn mac(&self, endpoint: Uuid, user_endpoint: Uuid, block: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        // The ids have a fixed length and the name comes last, so no two blocks give the same bytes.
        mac.update(b"waypost block token 1\0");
        mac.update(endpoint.as_bytes());
        mac.update(user_endpoint.as_bytes());
        mac.update(block.as_bytes());
        mac
    }
}

impl BlockToken {
    /// A token as it was read from its file; blanks around it do not count.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The token's text, to write it to the block's file. A secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect()
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenKey(***)")
    }
}

impl fmt::Debug for BlockToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BlockToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_block_only() {
        let key = TokenKey::from_bytes([7; 32]);
        let (endpoint, user) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let token = key.token(endpoint, user, "block-1");
        assert!(key.verify(endpoint, user, "block-1", &token));
        assert!(key.verify(
            endpoint,
            user,
            "block-1",
            &BlockToken::from_text(&format!(" {}\n", token.reveal()))
        ));
        assert!(!key.verify(endpoint, user, "block-2", &token));
        assert!(!key.verify(endpoint, Uuid::from_u128(3), "block-1", &token));
        assert!(!key.verify(user, endpoint, "block-1", &token));
        assert!(!TokenKey::from_bytes([8; 32]).verify(endpoint, user, "block-1", &token));
    }

    #[test]
    fn a_token_that_is_no_token_is_refused_without_a_panic() {
        let key = TokenKey::from_bytes([7; 32]);
        for text in [
            "",
            "0",
            "zz",
            "00",
            "é",
            "\u{1F600}\u{1F600}",
            &"0".repeat(64),
            &"f".repeat(1000),
        ] {
            assert!(!key.verify(Uuid::nil(), Uuid::nil(), "b", &BlockToken::from_text(text)));
        }
    }

    #[test]
    fn neither_key_nor_token_shows_in_debug_output() {
        let key = TokenKey::from_bytes([7; 32]);
        let token = key.token(Uuid::nil(), Uuid::nil(), "b");
        assert_eq!(format!("{key:?} {token:?}"), "TokenKey(***) BlockToken(***)");
    }

    #[test]
    fn the_token_of_a_key_stays_the_same_over_releases() {
        // Workers outlive the agent that made their token. The value is from Python's hmac module.
        let token = TokenKey::from_bytes([1; 32]).token(Uuid::from_u128(1), Uuid::from_u128(2), "block-7");
        assert_eq!(
            token.reveal(),
            "eda62729554c9c503caac8283ed756e59bbd18b055060bde2f08d68d8473ba3e"
        );
    }
}
