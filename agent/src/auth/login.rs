//! Logging in and out as a person: the authorization code flow with PKCE (RFC 7636), whose code is pasted by hand.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use super::api::{AuthApi, Profile};
use super::credentials::{CredentialsError, Login, UserLogin};
use super::error::AuthError;
use super::id_token;
use super::requirements::LoginRequirements;
use super::scope::Scope;
use super::storage::StorageError;
use super::tokens::Tokens;

/// A login that has begun: a person is to open the address and to bring the code that it ends with.
#[derive(Debug)]
pub struct LoginFlow {
    url: Url,
    redirect_uri: String,
    verifier: SecretString,
    user: UserLogin,
    namespace: String,
}

impl LoginFlow {
    fn new(api: &AuthApi, user: UserLogin, namespace: String, host: &str, wanted: &LoginRequirements) -> Self {
        let random: [u8; 48] = rand::random();
        let verifier = SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(random));
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret()));
        let redirect_uri = api.url("v2/web/auth-code").to_string();
        let mut scopes: Vec<&str> = Scope::ALL.iter().flat_map(|scope| scope.asked()).copied().collect();
        for scope in wanted.scopes() {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let mut url = api.url("v2/oauth2/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &user.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", "_default")
            .append_pair("response_type", "code")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("access_type", "offline")
            .append_pair("prefill_named_grant", host);
        wanted.append_to(&mut url);
        Self {
            url,
            redirect_uri,
            verifier,
            user,
            namespace,
        }
    }

    /// The address that the person is to open.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl Tokens {
    /// Why a person has to log in before a token can be had; nothing if nobody has to.
    ///
    /// # Errors
    /// [`AuthError`] if the credentials can not be read.
    pub async fn login_required(&self) -> Result<Option<String>, AuthError> {
        let found = self.credentials.find()?;
        let Login::User(user) = &found.login else {
            return Ok(None);
        };
        let namespace = self.credentials.namespace(&found.login);
        let stored = user.storage.read(&namespace).await?;
        for scope in Scope::ALL {
            // A storage that was mounted was made elsewhere, for all that its maker needed: it is enough if it is
            // enough for the endpoint.
            let scopes = if user.storage.is_mounted() {
                scope.needed()
            } else {
                scope.asked()
            };
            let reason = match stored.get(scope.resource_server()) {
                Some(data) => data.unfit(scopes),
                None => Some(format!(
                    "Nobody has logged in: {} has no token for {} in {namespace}",
                    user.place(),
                    scope.resource_server()
                )),
            };
            if reason.is_some() {
                return Ok(reason);
            }
        }
        Ok(None)
    }

    /// Begins a login of a person on the machine called `host`, as a service wants it.
    ///
    /// # Errors
    /// [`AuthError`] if the credentials are a client's that are not whole, or tokens could not be stored.
    pub fn begin_login(&self, host: &str, wanted: &LoginRequirements) -> Result<LoginFlow, AuthError> {
        let found = self.credentials.find()?;
        let namespace = self.credentials.namespace(&found.login);
        match found.login {
            Login::User(user) if user.storage.is_mounted() => {
                Err(StorageError::Mounted(user.storage.path().to_owned()).into())
            }
            Login::User(user) => Ok(LoginFlow::new(&self.api, user, namespace, host, wanted)),
            Login::Client(_) => Err(AuthError::LoginRequired(
                "A client's id and secret are set, and a client does not log in as a person does".to_owned(),
            )),
        }
    }

    /// Ends a login with the code that the person has brought, and stores its tokens.
    ///
    /// # Errors
    /// [`AuthError`] if the code is not taken, it is another person than before, or the tokens can not be stored.
    pub async fn finish_login(&self, flow: LoginFlow, code: &str) -> Result<(), AuthError> {
        let LoginFlow {
            redirect_uri,
            verifier,
            user,
            namespace,
            ..
        } = flow;
        let granted = self
            .api
            .exchange(&user.client_id, code, &verifier, &redirect_uri)
            .await?;
        let statement = granted.id_token.as_ref().ok_or_else(|| AuthError::Answer {
            url: self.api.url("v2/oauth2/token").to_string(),
            reason: "Token grant response doesn't contain an id_token. This normally occurs if the auth flow didn't \
                     include 'openid' alongside other scopes"
                .to_owned(),
        })?;
        let identity = id_token::identity_of(&self.api, statement, &user.client_id).await?;
        let before = user.storage.read(&namespace).await?;
        if let Some(stored) = before.values().find_map(|data| data.identity_id.as_ref())
            && *stored != identity
        {
            return Err(AuthError::IdentityMismatch {
                stored: stored.clone(),
                new: identity,
            });
        }
        let mut tokens = granted.tokens;
        for data in &mut tokens {
            data.identity_id = Some(identity.clone());
        }
        for scope in Scope::ALL {
            let data = tokens.iter().find(|data| data.is_for(scope));
            let reason = match data {
                Some(data) => data.unfit(scope.asked()),
                None => Some(format!("The login brought no token for {}", scope.resource_server())),
            };
            if let Some(reason) = reason {
                return Err(AuthError::LoginRequired(reason));
            }
        }
        user.storage.write(&namespace, &tokens).await?;
        Ok(())
    }

    /// Revokes the tokens that are stored, of a person or of a client, and forgets them.
    ///
    /// # Errors
    /// [`AuthError`] if one can not be revoked: it is still stored then.
    pub async fn logout(&self) -> Result<(), AuthError> {
        let found = self.credentials.find()?;
        let namespace = self.credentials.namespace(&found.login);
        let (client, storage) = match &found.login {
            Login::Client(client) => (Ok(client), self.credentials.own_storage()),
            Login::User(user) if user.storage.is_mounted() => {
                return Err(StorageError::Mounted(user.storage.path().to_owned()).into());
            }
            Login::User(user) => (Err(user.client_id.as_str()), user.storage.clone()),
        };
        let stored = storage.read(&namespace).await?;
        for scope in Scope::ALL {
            let Some(data) = stored.get(scope.resource_server()) else {
                continue;
            };
            self.api.revoke(client, &data.access_token).await?;
            if let Some(token) = &data.refresh_token {
                self.api.revoke(client, token).await?;
            }
            storage.remove(&namespace, scope.resource_server()).await?;
        }
        Ok(())
    }

    /// What is known of an identity.
    ///
    /// # Errors
    /// [`AuthError`] if Globus Auth does not say.
    pub async fn profile(&self, id: Uuid) -> Result<Profile, AuthError> {
        let token = self.token(Scope::Auth).await?;
        self.api.profile(id, &token).await
    }

    /// Whether the endpoint belongs to a person, and not to a client.
    ///
    /// # Errors
    /// [`CredentialsError`] if that is not clear.
    pub fn is_of_a_person(&self) -> Result<bool, CredentialsError> {
        Ok(matches!(self.credentials.find()?.login, Login::User(_)))
    }
}
