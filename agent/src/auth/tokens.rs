use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint_telemetry::Metrics;
use futures_util::future::BoxFuture;
use reqwest::Client;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use url::Url;

use super::api::{AuthApi, Granted, Identities};
use super::credentials::{ClientCredentials, Credentials, Fingerprint, Found, Login, UserLogin};
use super::error::AuthError;
use super::health::{CredentialsStatus, Health};
use super::id_token;
use super::scope::Scope;
use super::token_data::TokenData;

/// Credentials that were refused are not tried again sooner, however many ask for a token.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// Where tokens are kept that were refreshed, if the storage that they came from is only read.
pub trait TokenKeeper: Send + Sync + std::fmt::Debug {
    /// What was kept last. An error is a sentence.
    fn load(&self) -> BoxFuture<'_, Result<Option<Zeroizing<Vec<u8>>>, String>>;
    /// Keeps this. An error is a sentence.
    fn save<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>>;
    /// Removes this, if it is still what is kept. An error is a sentence.
    fn forget<'a>(&'a self, content: &'a [u8]) -> BoxFuture<'a, Result<(), String>>;
}

/// Tokens of a mounted storage, as they are kept.
#[derive(Serialize, Deserialize)]
struct KeptTokens {
    /// The fingerprint of the storage that they came from: another one goes before them.
    source: String,
    tokens: Vec<TokenData>,
}

/// Gets tokens and keeps them until shortly before they expire.
#[derive(Debug)]
pub struct Tokens {
    pub(super) api: AuthApi,
    pub(super) credentials: Credentials,
    keeper: Option<Arc<dyn TokenKeeper>>,
    inner: Mutex<Inner>,
    health: Health,
}

#[derive(Debug, Default)]
struct Inner {
    fingerprint: Option<Fingerprint>,
    /// Tokens of a client, and those of a mounted storage.
    kept: BTreeMap<String, TokenData>,
    /// Access tokens that a service refused before they expired.
    spoiled: BTreeMap<Scope, SecretString>,
    refused: Option<Refused>,
    /// What the state keeps may be of a login that this one goes before.
    replaces: bool,
}

/// What Globus Auth refused last.
#[derive(Debug)]
struct Refused {
    at: Instant,
    tried: SecretString,
    error: AuthError,
}

impl Tokens {
    /// Will get tokens for `credentials` from the Globus Auth at `base`.
    #[must_use]
    pub fn new(client: Client, base: Url, credentials: Credentials, metrics: &Metrics) -> Self {
        Self {
            api: AuthApi::new(client, base),
            credentials,
            keeper: None,
            inner: Mutex::new(Inner::default()),
            health: Health::new(metrics),
        }
    }

    /// Keeps refreshed tokens of a storage that is only read there, and takes up what is there.
    #[must_use]
    pub fn with_keeper(mut self, keeper: Arc<dyn TokenKeeper>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// Whether credentials are looked for in a folder that others fill.
    #[must_use]
    pub fn has_folder(&self) -> bool {
        self.credentials.has_folder()
    }

    /// What became of the credentials when they were used last.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<CredentialsStatus> {
        self.health.status()
    }

    /// A token that is good for at least another minute.
    ///
    /// # Errors
    /// [`AuthError`] if there are no credentials, or Globus Auth does not give one for them.
    pub async fn token(&self, scope: Scope) -> Result<SecretString, AuthError> {
        Ok(self.data(scope).await?.access_token)
    }

    pub(super) async fn data(&self, scope: Scope) -> Result<TokenData, AuthError> {
        // The lock is held over the call, so that callers at the same moment share one token.
        let mut inner = self.inner.lock().await;
        let outcome = match self.credentials.find() {
            Ok(found) => {
                let outcome = self.valid(&mut inner, &found, scope).await;
                self.health.note(Some(&found.login), outcome.as_ref());
                outcome
            }
            Err(error) => {
                let error = AuthError::from(error);
                self.health.note(None, Err(&error));
                Err(error)
            }
        };
        drop(inner);
        outcome
    }

    /// Forgets a token, because a service refused it.
    pub async fn invalidate(&self, scope: Scope, token: &SecretString) {
        let mut inner = self.inner.lock().await;
        inner.spoiled.insert(scope, token.clone());
    }

    /// A service refuses even a fresh token.
    pub fn refused_by_service(&self, reason: &str) {
        self.health.refused(reason);
    }

    /// Who the login is.
    ///
    /// # Errors
    /// [`AuthError`] if Globus Auth does not say.
    pub async fn identities(&self) -> Result<Identities, AuthError> {
        let mut retried = false;
        loop {
            let token = self.token(Scope::Auth).await?;
            match self.api.identities(&token).await {
                Err(AuthError::Refused { status: 401, .. }) if !retried => {
                    retried = true;
                    self.invalidate(Scope::Auth, &token).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether, after a change in a folder, a token is worth asking for: the credentials are others, or brought none.
    pub(super) async fn would_gain(&self) -> bool {
        let inner = self.inner.lock().await;
        let same = match self.credentials.find() {
            Ok(found) => inner.fingerprint.as_ref() == Some(&found.fingerprint),
            Err(_) => false,
        };
        drop(inner);
        !same || !self.health.is_valid()
    }

    async fn valid(&self, inner: &mut Inner, found: &Found, scope: Scope) -> Result<TokenData, AuthError> {
        self.take_up(inner, found).await?;
        match &found.login {
            Login::Client(client) => self.of_client(inner, client, scope).await,
            Login::User(user) => {
                let namespace = self.credentials.namespace(&found.login);
                self.of_user(inner, user, &namespace, scope).await
            }
        }
    }

    /// Begins anew if the credentials are others than last time.
    async fn take_up(&self, inner: &mut Inner, found: &Found) -> Result<(), AuthError> {
        if inner.fingerprint.as_ref() == Some(&found.fingerprint) {
            return Ok(());
        }
        for remark in &found.remarks {
            tracing::warn!("{remark}");
        }
        let (mut kept, mut replaces) = (BTreeMap::new(), true);
        if let Login::User(user) = &found.login {
            let namespace = self.credentials.namespace(&found.login);
            if user.storage.is_mounted() {
                match self.kept_for(&found.fingerprint).await {
                    Some(known) => (kept, replaces) = (known, false),
                    None => kept = user.storage.read(&namespace).await?,
                }
            } else {
                // That a Secret is wiped is nobody's login: when it is back, what was refreshed counts again.
                replaces = user
                    .storage
                    .read(&namespace)
                    .await
                    .is_ok_and(|tokens| !tokens.is_empty());
            }
        }
        if inner.fingerprint.is_some() {
            tracing::info!("the credentials have changed; the new ones count from now on");
        }
        *inner = Inner {
            fingerprint: Some(found.fingerprint.clone()),
            kept,
            replaces,
            ..Inner::default()
        };
        Ok(())
    }

    /// Removes the tokens that the state keeps of a login, if another has taken its place. An error is that they are
    /// there still, perhaps.
    pub(super) async fn forget_replaced(&self) -> Result<(), String> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let inner = self.inner.lock().await;
        let source = inner.fingerprint.clone().filter(|_| inner.replaces);
        drop(inner);
        let Some(source) = source else { return Ok(()) };
        if let Some(content) = keeper.load().await?
            && serde_json::from_slice::<KeptTokens>(&content).map_or(true, |kept| kept.source != source.0)
        {
            keeper.forget(&content).await?;
            tracing::info!("the tokens of the login before are removed from the state");
        }
        let mut inner = self.inner.lock().await;
        if inner.fingerprint.as_ref() == Some(&source) {
            inner.replaces = false;
        }
        drop(inner);
        Ok(())
    }

    /// The tokens that were refreshed since they came from this source.
    async fn kept_for(&self, source: &Fingerprint) -> Option<BTreeMap<String, TokenData>> {
        let loaded = self.keeper.as_ref()?.load().await;
        let content = loaded
            .inspect_err(|error| tracing::warn!(%error, "the refreshed tokens that were kept can not be used"))
            .ok()??;
        let kept: KeptTokens = serde_json::from_slice(&content).ok()?;
        let tokens = kept.tokens.into_iter();
        (kept.source == source.0).then(|| tokens.map(|data| (data.resource_server.clone(), data)).collect())
    }

    async fn of_client(
        &self,
        inner: &mut Inner,
        client: &ClientCredentials,
        scope: Scope,
    ) -> Result<TokenData, AuthError> {
        if let Some(data) = inner.kept.get(scope.resource_server())
            && inner.is_good(data, scope)
        {
            return Ok(data.clone());
        }
        inner.check_refusal(&client.secret)?;
        let outcome = self.api.client_grant(client, scope.asked()).await;
        let granted = inner.remembered(&client.secret, outcome)?;
        let data = granted.token_for(scope)?;
        inner.kept.insert(data.resource_server.clone(), data.clone());
        Ok(data)
    }

    async fn of_user(
        &self,
        inner: &mut Inner,
        user: &UserLogin,
        namespace: &str,
        scope: Scope,
    ) -> Result<TokenData, AuthError> {
        let stored = if user.storage.is_mounted() {
            inner.kept.get(scope.resource_server()).cloned()
        } else {
            // Another program may have logged in, refreshed or logged out since.
            user.storage.read(namespace).await?.remove(scope.resource_server())
        };
        let stored = stored.ok_or_else(|| {
            AuthError::LoginRequired(format!(
                "Nobody has logged in: {} has no token for {} in {namespace}",
                user.place(),
                scope.resource_server()
            ))
        })?;
        if let Some(reason) = stored.unfit(scope.needed()) {
            return Err(AuthError::LoginRequired(reason));
        }
        if inner.is_good(&stored, scope) {
            return Ok(stored);
        }
        let refresh_token = stored.refresh_token.clone().unwrap_or_default();
        inner.check_refusal(&refresh_token)?;
        let outcome = self.api.refresh(&user.client_id, &refresh_token).await;
        let granted = inner.remembered(&refresh_token, outcome)?;
        let data = self.refreshed(stored, granted, &user.client_id, scope).await?;
        self.store(inner, user, namespace, data.clone()).await;
        Ok(data)
    }

    /// What is to be stored after a refresh: as before, with what is new.
    async fn refreshed(
        &self,
        before: TokenData,
        granted: Granted,
        client_id: &str,
        scope: Scope,
    ) -> Result<TokenData, AuthError> {
        let mut data = granted.token_for(scope)?;
        // The identity can not change by a refresh. Files of old SDKs do not say whose tokens they hold.
        data.identity_id = match (before.identity_id, &granted.id_token) {
            (Some(identity), _) => Some(identity),
            (None, Some(token)) => Some(id_token::identity_of(&self.api, token, client_id).await?),
            (None, None) => None,
        };
        data.refresh_token = data.refresh_token.or(before.refresh_token);
        data.token_type = data.token_type.or(before.token_type);
        data.others = before.others;
        if data.scope.is_empty() {
            data.scope = before.scope;
        }
        match data.unfit(scope.needed()) {
            Some(reason) => Err(AuthError::LoginRequired(reason)),
            None => Ok(data),
        }
    }

    /// Keeps a refreshed token. One that can not be kept is good nevertheless.
    async fn store(&self, inner: &mut Inner, user: &UserLogin, namespace: &str, data: TokenData) {
        let stored = if user.storage.is_mounted() {
            inner.kept.insert(data.resource_server.clone(), data);
            self.keep(inner).await
        } else {
            let written = user.storage.write(namespace, &[data]).await;
            written.map_err(|error| error.to_string())
        };
        if let Err(error) = stored {
            tracing::warn!("the refreshed token is used, and not kept: {error}");
        }
    }

    async fn keep(&self, inner: &Inner) -> Result<(), String> {
        let (Some(keeper), Some(source)) = (&self.keeper, &inner.fingerprint) else {
            return Ok(());
        };
        let kept = KeptTokens {
            source: source.0.clone(),
            tokens: inner.kept.values().cloned().collect(),
        };
        let content = Zeroizing::new(serde_json::to_vec(&kept).map_err(|error| error.to_string())?);
        keeper.save(&content).await
    }
}

impl Inner {
    /// Whether a token can be used: it has time left, and no service has refused it.
    fn is_good(&self, data: &TokenData, scope: Scope) -> bool {
        let spoiled = self.spoiled.get(&scope);
        !data.good_for().is_zero()
            && spoiled.is_none_or(|token| token.expose_secret() != data.access_token.expose_secret())
    }

    /// Remembers what was refused, for those who ask next.
    fn remembered(&mut self, tried: &SecretString, outcome: Result<Granted, AuthError>) -> Result<Granted, AuthError> {
        self.refused = match &outcome {
            Err(error @ AuthError::Refused { .. }) if !error.is_passing() => Some(Refused {
                at: Instant::now(),
                tried: tried.clone(),
                error: error.clone(),
            }),
            Ok(_) | Err(_) => None,
        };
        outcome
    }

    fn check_refusal(&self, tried: &SecretString) -> Result<(), AuthError> {
        match &self.refused {
            Some(refused)
                if refused.at.elapsed() < REFUSAL_PAUSE && refused.tried.expose_secret() == tried.expose_secret() =>
            {
                Err(refused.error.clone())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Granted {
    fn token_for(&self, scope: Scope) -> Result<TokenData, AuthError> {
        let found = self.tokens.iter().find(|data| data.is_for(scope));
        found.cloned().ok_or_else(|| AuthError::Answer {
            url: "Globus Auth".to_owned(),
            reason: format!("it has no token for {}", scope.resource_server()),
        })
    }
}
