//! The state as one Secret in the agent's own namespace.
//!
//! The agent may `get` and `patch` that Secret and no other. Two agents may live for a while (a rollout, a node that is
//! cut off), so every write names the version that it was decided on; a write that another agent was faster than is
//! decided anew on what is there now, and touches no other key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use endpoint_telemetry::Metrics;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::Mutex;

use super::StateError;
use super::keys;

/// Kubernetes takes no larger Secret (keys and values together).
const SIZE_MAX: usize = 1024 * 1024;
/// An API server that is silent for so long counts as away.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A write that so many others were faster than, one after the other, is given up.
const ATTEMPTS: usize = 50;

/// A Secret that holds state.
pub struct SecretMedium {
    api: Api<Secret>,
    name: String,
    namespace: String,
    seen: Mutex<Option<Seen>>,
}

/// The Secret as it was when it was read or written last.
#[derive(Default)]
struct Seen {
    version: String,
    data: BTreeMap<String, Vec<u8>>,
}

/// What a write rests on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected<'a> {
    /// Whatever is there is replaced.
    Anything,
    /// Only this is replaced.
    Exactly(Option<&'a [u8]>),
}

impl fmt::Debug for SecretMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMedium")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl SecretMedium {
    /// The Secret `name` in `namespace` of the cluster that this pod runs in, or that the kubeconfig names.
    ///
    /// # Errors
    /// [`StateError::Secret`] if there is no cluster. Nothing is asked of it yet.
    pub async fn open(name: String, namespace: String, metrics: &Arc<Metrics>) -> Result<Self, StateError> {
        let failed = |reason: String| StateError::Secret {
            name: name.clone(),
            namespace: namespace.clone(),
            verb: "read",
            reason,
            passing: false,
        };
        let mut config = Config::infer()
            .await
            .map_err(|error| failed(format!("no cluster is known: {error}")))?;
        config.connect_timeout = Some(TIMEOUT);
        let client = endpoint_cluster_client::connect(config, metrics).map_err(|error| failed(error.to_string()))?;
        Ok(Self::with_client(client, name, namespace))
    }

    /// The Secret `name` in `namespace`, by a client that is there.
    #[must_use]
    pub fn with_client(client: Client, name: String, namespace: String) -> Self {
        Self {
            api: Api::namespaced(client, &namespace),
            name,
            namespace,
            seen: Mutex::new(None),
        }
    }

    pub(super) fn place(&self) -> String {
        format!("the Secret {}", self.name)
    }

    /// A key's value as it is now.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let mut seen = self.seen.lock().await;
        let fresh = self.get().await?;
        Ok(seen.insert(fresh).data.get(key).cloned())
    }

    /// The keys of all saved user endpoints, as they are now.
    pub(super) async fn user_endpoints(&self) -> Result<Vec<String>, StateError> {
        let mut seen = self.seen.lock().await;
        let fresh = self.get().await?;
        let keys = seen.insert(fresh).data.keys();
        Ok(keys
            .filter(|key| keys::user_endpoint_id(key).is_some())
            .cloned()
            .collect())
    }

    /// Sets a key's value, or removes it. False if what is there is not what was expected.
    pub(super) async fn write(
        &self,
        key: &str,
        expected: Expected<'_>,
        content: Option<&[u8]>,
    ) -> Result<bool, StateError> {
        let mut guard = self.seen.lock().await;
        for _ in 0..ATTEMPTS {
            let seen = match guard.take() {
                Some(seen) => seen,
                None => self.get().await?,
            };
            if let Expected::Exactly(value) = expected
                && seen.data.get(key).map(Vec::as_slice) != value
            {
                *guard = Some(seen);
                return Ok(false);
            }
            if let Err(error) = self.check_size(&seen, key, content) {
                *guard = Some(seen);
                return Err(error);
            }
            let patch = json!({
                "metadata": {"resourceVersion": seen.version},
                "data": {key: content.map(|content| ByteString(content.to_vec()))},
            });
            let patched = self.patched(&Patch::Merge(patch)).await?;
            // Without an answer of its own, another agent was faster: what is there now is read first.
            if let Some(secret) = patched {
                *guard = Some(secret);
                return Ok(true);
            }
        }
        Err(self.failed("written", "others write to it all the time".to_owned(), true))
    }

    fn check_size(&self, seen: &Seen, key: &str, content: Option<&[u8]>) -> Result<(), StateError> {
        let Some(content) = content else { return Ok(()) };
        let others = seen.data.iter().filter(|(name, _)| *name != key);
        let size = others.map(|(name, value)| name.len() + value.len()).sum::<usize>() + key.len() + content.len();
        if size > SIZE_MAX {
            return Err(StateError::Full {
                name: self.name.clone(),
                size,
                limit: SIZE_MAX,
            });
        }
        Ok(())
    }

    async fn get(&self) -> Result<Seen, StateError> {
        match tokio::time::timeout(TIMEOUT, self.api.get(&self.name)).await {
            Ok(Ok(secret)) => Ok(Seen::from(secret)),
            Ok(Err(error)) => Err(self.explain("read", "get", &error)),
            Err(_) => Err(self.silent("read")),
        }
    }

    /// `None` if the Secret is no longer what the patch was made for.
    async fn patched(&self, patch: &Patch<serde_json::Value>) -> Result<Option<Seen>, StateError> {
        let parameters = PatchParams::default();
        let call = self.api.patch(&self.name, &parameters, patch);
        match tokio::time::timeout(TIMEOUT, call).await {
            Ok(Ok(secret)) => Ok(Some(Seen::from(secret))),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(self.explain("written", "patch", &error)),
            Err(_) => Err(self.silent("written")),
        }
    }

    fn silent(&self, verb: &'static str) -> StateError {
        self.failed(
            verb,
            format!("the API server has not answered for {} s", TIMEOUT.as_secs()),
            true,
        )
    }

    fn explain(&self, verb: &'static str, right: &str, error: &kube::Error) -> StateError {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every other error is of the connection")]
        let (reason, passing) = match error {
            kube::Error::Api(status) => match status.code {
                404 => (
                    "there is no such Secret; the deployment has to make it, empty (`kubectl create secret generic`)"
                        .to_owned(),
                    false,
                ),
                401 | 403 => (
                    format!(
                        "{}; the agent's Role has to allow `{right}` on this Secret by its name",
                        status.message
                    ),
                    false,
                ),
                code => (status.message.clone(), code == 429 || code >= 500),
            },
            other => (chain(other), true),
        };
        self.failed(verb, reason, passing)
    }

    fn failed(&self, verb: &'static str, reason: String, passing: bool) -> StateError {
        StateError::Secret {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            verb,
            reason,
            passing,
        }
    }
}

impl From<Secret> for Seen {
    fn from(secret: Secret) -> Self {
        Self {
            version: secret.metadata.resource_version.unwrap_or_default(),
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, value.0))
                .collect(),
        }
    }
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
