//! The anchor: an empty `ConfigMap` in each worker namespace that owns every pod and Secret of the endpoint there, so that
//! deleting it deletes them all, whether an agent lives or not.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;

use super::api::{ApiError, call};
use super::deployment::Deployment;
use super::labels;
use super::limits::RateLimit;

/// Why there is no anchor.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AnchorError {
    /// The one that the deployment names is not there.
    #[error(
        "the ConfigMap {name}, which owns the endpoint's pods, does not exist in the namespace {namespace}: make it (kubectl create configmap {name} -n {namespace}), or correct the option `namespace`"
    )]
    Missing {
        /// Its name.
        name: String,
        /// Where it should be.
        namespace: String,
    },
    /// It can not be read or made.
    #[error("the ConfigMap {name}, which owns the endpoint's pods, can not be read: {source}")]
    Api {
        /// Its name.
        name: String,
        /// Why.
        source: ApiError,
    },
}

impl AnchorError {
    /// Whether it may be there the next time.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.is_transient())
    }
}

/// Reads the anchor, or makes it where the deployment names none.
pub(super) async fn find(
    api: &Api<ConfigMap>,
    limit: &RateLimit,
    deployment: &Deployment,
    namespace: &str,
) -> Result<OwnerReference, AnchorError> {
    let name = deployment.anchor.clone().unwrap_or_else(|| {
        let digits = deployment.endpoint_id.simple().to_string();
        format!("waypost-{}", &digits[..8])
    });
    let failed = |source| AnchorError::Api {
        name: name.clone(),
        source,
    };
    let anchor = match call(limit, api.get(&name)).await {
        Err(error) if error.is_missing() && deployment.anchor.is_some() => {
            return Err(AnchorError::Missing {
                name,
                namespace: namespace.to_owned(),
            });
        }
        Err(error) if error.is_missing() => {
            match call(limit, api.create(&PostParams::default(), &new(&name, deployment))).await {
                // Another user endpoint's, or another agent's, made in the meantime.
                Err(ApiError::Answered(status)) if status.is_already_exists() => {
                    call(limit, api.get(&name)).await.map_err(failed)?
                }
                made => made.map_err(failed)?,
            }
        }
        found => found.map_err(failed)?,
    };
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name,
        uid: anchor.metadata.uid.unwrap_or_default(),
        // So that `kubectl drain` takes the pods for managed ones.
        controller: Some(true),
        // To set it needs the right to change finalizers of ConfigMaps, and nothing waits for it.
        block_owner_deletion: Some(false),
    })
}

fn new(name: &str, deployment: &Deployment) -> ConfigMap {
    let mut labels = std::collections::BTreeMap::new();
    labels.insert(labels::ENDPOINT.to_owned(), deployment.endpoint_id.to_string());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "waypost".to_owned());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}
