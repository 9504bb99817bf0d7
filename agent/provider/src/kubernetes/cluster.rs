//! What all user endpoints of the process share of a cluster: one client, one rate limit, one watch for each namespace.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use endpoint_telemetry::Metrics;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Config};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::anchor;
use super::api::ApiError;
use super::deployment::Deployment;
use super::events::Recorder;
use super::limits::RateLimit;
use super::looks::Looks;
use super::watch::Watches;

/// Requests a second that the process makes, and how many at once. A block takes two to start and two to end.
const REQUESTS: (u32, u32) = (100, 200);
/// Changes of annotations a second: they are worth little, and must not hold up anything.
const ANNOTATIONS: (u32, u32) = (10, 20);
/// How long an anchor is taken to be the one that was read. One that was made anew has another id, and what names the
/// old one as its owner is deleted by Kubernetes.
const ANCHOR_FRESH: Duration = Duration::from_secs(10);
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A cluster, as all user endpoints of the process see it. Nothing is connected before it is used.
pub struct Cluster {
    deployment: Deployment,
    client: OnceCell<Client>,
    requests: RateLimit,
    annotations: RateLimit,
    looks: Looks,
    anchors: Mutex<BTreeMap<String, (OwnerReference, Instant)>>,
    watches: Watches,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Cluster {
    /// A cluster that nobody has asked for anything yet.
    #[must_use]
    pub fn new(deployment: Deployment, metrics: Arc<Metrics>) -> Arc<Self> {
        let recorder = Recorder::new(&deployment);
        Arc::new(Self {
            watches: Watches::new(deployment.endpoint_id),
            deployment,
            client: OnceCell::new(),
            requests: RateLimit::new(REQUESTS.0, REQUESTS.1),
            annotations: RateLimit::new(ANNOTATIONS.0, ANNOTATIONS.1),
            looks: Looks::new(),
            anchors: Mutex::default(),
            recorder,
            metrics,
        })
    }

    /// A cluster that is reached by this client, whatever the configuration says. Its requests are not counted.
    #[must_use]
    pub fn with_client(deployment: Deployment, client: Client) -> Arc<Self> {
        let cluster = Self::new(deployment, Metrics::shared());
        // It was made this very moment: there is no other client in it.
        let _ = cluster.client.set(client);
        cluster
    }

    /// What the deployment said.
    #[must_use]
    pub const fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    pub(super) const fn requests(&self) -> &RateLimit {
        &self.requests
    }

    pub(super) const fn annotations(&self) -> &RateLimit {
        &self.annotations
    }

    pub(super) const fn looks(&self) -> &Looks {
        &self.looks
    }

    pub(super) const fn watches(&self) -> &Watches {
        &self.watches
    }

    pub(super) const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The client; connected with the first use. `in_cluster`: by the files of the pod that the agent runs in, or by a
    /// kubeconfig; if nobody says, by those files where there are any.
    pub(super) async fn client(&self, in_cluster: Option<bool>) -> Result<Client, ApiError> {
        let connect = || async move {
            let inside = in_cluster.unwrap_or_else(|| Path::new(SERVICE_ACCOUNT_TOKEN).exists());
            let config = if inside {
                Config::incluster().map_err(|error| ApiError::Unusable(error.to_string()))?
            } else {
                Config::infer()
                    .await
                    .map_err(|error| ApiError::Unusable(error.to_string()))?
            };
            endpoint_cluster_client::connect(config, &self.metrics).map_err(ApiError::of)
        };
        self.client.get_or_try_init(connect).await.cloned()
    }

    /// What owns the pods and Secrets of a namespace.
    pub(super) async fn owner(&self, client: &Client, namespace: &str) -> Result<OwnerReference, anchor::AnchorError> {
        let mut anchors = self.anchors.lock().await;
        if let Some((owner, read)) = anchors.get(namespace)
            && read.elapsed() < ANCHOR_FRESH
        {
            return Ok(owner.clone());
        }
        let api = Api::namespaced(client.clone(), namespace);
        let owner = anchor::find(&api, &self.requests, &self.deployment, namespace).await?;
        anchors.insert(namespace.to_owned(), (owner.clone(), Instant::now()));
        Ok(owner)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("deployment", &self.deployment)
            .field("connected", &self.client.initialized())
            .finish_non_exhaustive()
    }
}
