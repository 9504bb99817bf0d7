//! The statement of Globus Auth about who logged in: a JWT that is signed with RS256 (OpenID Connect Core, section 2).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::api::AuthApi;
use super::error::AuthError;
use super::token_data::now;

/// Clocks may differ by so much.
const LEEWAY_SECONDS: u64 = 60;

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

/// A public key (RFC 7517).
#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    aud: Audience,
    exp: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The identity that the statement is about, once it is known to be of this service and for this client.
pub(super) async fn identity_of(api: &AuthApi, id_token: &SecretString, client_id: &str) -> Result<String, AuthError> {
    let place = api.url(".well-known/openid-configuration");
    let discovery: Discovery = api.get(place.clone(), None).await?;
    let keys: Keys = api.get(discovery.jwks_uri, None).await?;
    identity(id_token.expose_secret(), &keys, &discovery.issuer, client_id).map_err(|reason| AuthError::Answer {
        url: place.to_string(),
        reason: format!("its id_token is not valid: {reason}"),
    })
}

fn identity(token: &str, keys: &Keys, issuer: &str, client_id: &str) -> Result<String, &'static str> {
    let (signed, signature) = token.rsplit_once('.').ok_or("it has no signature")?;
    let (header, claims) = signed.split_once('.').ok_or("it has no claims")?;
    let header: Header = part(header)?;
    if header.alg != "RS256" {
        return Err("it is not signed with RS256");
    }
    let key = keys
        .keys
        .iter()
        .find(|key| header.kid.is_none() || key.kid == header.kid)
        .ok_or("it is signed with a key that the service does not have")?;
    let bytes = |text: &Option<String>| {
        let text = text.as_deref().ok_or("the service's key is not an RSA key")?;
        decode(text)
    };
    RsaPublicKeyComponents {
        n: bytes(&key.n)?,
        e: bytes(&key.e)?,
    }
    .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature)?)
    .map_err(|_| "its signature is wrong")?;
    let claims: Claims = part(claims)?;
    let for_us = match &claims.aud {
        Audience::One(audience) => audience == client_id,
        Audience::Several(audiences) => audiences.iter().any(|audience| audience == client_id),
    };
    if claims.iss != issuer {
        Err("it is of another service")
    } else if !for_us {
        Err("it is for another client")
    } else if claims.exp + LEEWAY_SECONDS < now() {
        Err("it has expired")
    } else {
        Ok(claims.sub)
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, &'static str> {
    serde_json::from_slice(&decode(text)?).map_err(|_| "a part of it is not the JSON expected")
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| "a part of it is not in base64url form")
}
