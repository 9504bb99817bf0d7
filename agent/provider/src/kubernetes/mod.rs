//! Blocks as pods.
//!
//! | module | its one job |
//! |---|---|
//! | `deployment`, `cluster` | what the agent is told of its place; what all user endpoints of the process share |
//! | `keeper` | the blocks of one user endpoint: orders, sightings and outcomes, one after the other |
//! | `jobs`, `api`, `limits`, `looks` | what is asked of the API server, how, how often at most, and whether of Events |
//! | `watch` | one list and watch for each namespace |
//! | `pod`, `layout`, `command`, `secret`, `anchor`, `labels` | the objects that are made |
//! | `permissions` | what the agent's account may not do |
//! | `observed` | a pod as it is looked at |
//! | `explain`, `refusal` | from what Kubernetes says to the engine's words |
//! | `kept`, `events` | failed pods that stay, and Kubernetes Events |
//!
//! It decides nothing but how: which blocks there are is the engine's business.

mod anchor;
mod api;
mod cluster;
mod command;
mod deployment;
mod events;
mod explain;
mod jobs;
mod keeper;
mod kept;
mod labels;
mod layout;
mod limits;
mod looks;
mod observed;
mod permissions;
mod pod;
mod refusal;
mod secret;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use endpoint_config::KubernetesProviderConfig;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use waypost_engine::{BlockEndKind, BlockId};
use waypost_link::BlockToken;

use super::{BlockNames, CheckError, ListError, Provider, ProviderEvent};
pub use cluster::Cluster;
pub use deployment::Deployment;
use jobs::Jobs;
use keeper::{Keeper, Order};

/// Said where nothing brings the worker's program into a pod.
const NO_WORKER_IMAGE: &str = "no image brings the worker's program into its pod: set the provider's option worker_image, or WAYPOST_WORKER_IMAGE in the agent's environment";

/// How the blocks of one user endpoint are launched.
#[derive(Clone)]
pub struct KubernetesSettings {
    /// The endpoint's id.
    pub endpoint_id: Uuid,
    /// What the pods are called, and whose they are.
    pub names: BlockNames,
    /// The options of the provider.
    pub config: KubernetesProviderConfig,
    /// Where workers dial, as `host:port`, the best first.
    pub addresses: Vec<String>,
    /// The certificate of the authority that signs the agent's, in PEM.
    pub certificate_pem: String,
    /// The worker's options that are the same for every block and not about the pod.
    pub worker_options: Vec<String>,
    /// Environment variables of the worker's container, under those of the option `env`.
    pub environment: BTreeMap<String, String>,
    /// Where tasks run, relative to the worker's home.
    pub working_directory: String,
    /// Makes a block's token.
    pub token: Arc<dyn Fn(&str) -> BlockToken + Send + Sync>,
}

impl KubernetesSettings {
    fn worker_image<'a>(&'a self, deployment: &'a Deployment) -> Option<&'a str> {
        let image = self
            .config
            .worker_image
            .as_deref()
            .or(deployment.worker_image.as_deref());
        image.filter(|image| !image.is_empty())
    }
}

/// The blocks of one user endpoint on a cluster. To be made within the Tokio runtime.
pub struct KubernetesProvider {
    jobs: Jobs,
    orders: mpsc::UnboundedSender<Order>,
    standby: tokio::sync::watch::Sender<bool>,
}

impl KubernetesProvider {
    /// A provider that says what it sees to `events`.
    #[must_use]
    pub fn new(
        settings: KubernetesSettings,
        cluster: Arc<Cluster>,
        events: mpsc::UnboundedSender<ProviderEvent>,
    ) -> Self {
        let (standby, stands_by) = tokio::sync::watch::channel(false);
        let jobs = Jobs {
            settings: Arc::new(settings),
            cluster,
            standby: stands_by,
            endings: TaskTracker::new(),
        };
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Keeper::run(jobs.clone(), events, receiver));
        Self { jobs, orders, standby }
    }

    fn order(&self, order: Order) {
        // The keeper lives for as long as this does.
        let _ = self.orders.send(order);
    }
}

impl Provider for KubernetesProvider {
    fn check(&mut self) -> BoxFuture<'_, Result<(), CheckError>> {
        async move {
            let config = &self.jobs.settings.config;
            let problems = config
                .pod_template
                .as_deref()
                .map(pod::template_problems)
                .unwrap_or_default();
            if !problems.is_empty() {
                return Err(CheckError::Refused(problems.join("; ")));
            }
            // No block has this name: numbers begin anew with each life, and nothing is made.
            let nobody = BlockId { epoch: 0, number: 0 };
            let Err(error) = self.jobs.dry_run(nobody).await else {
                return match self.jobs.missing_permissions().await {
                    Ok(None) => Ok(()),
                    Ok(Some(words)) => Err(CheckError::Doubtful(words)),
                    Err(error) => Err(CheckError::Doubtful(error.to_string())),
                };
            };
            if let api::ApiError::Unusable(words) = error {
                return Err(CheckError::Refused(words));
            }
            let end = refusal::end("a pod as this configuration says it", &error);
            if end.kind == BlockEndKind::Rejected {
                Err(CheckError::Refused(end.message))
            } else {
                Err(CheckError::Doubtful(end.message))
            }
        }
        .boxed()
    }

    fn list(&mut self) -> BoxFuture<'_, Result<Vec<BlockId>, ListError>> {
        async move {
            let (reply, answer) = oneshot::channel();
            self.order(Order::List(reply));
            match answer.await {
                Ok(listed) => listed,
                Err(_) => Err(ListError::new("the cluster", "the provider has ended")),
            }
        }
        .boxed()
    }

    fn start(&mut self, block: BlockId) {
        self.order(Order::Start(block));
    }

    fn delete(&mut self, block: BlockId) {
        self.order(Order::Delete(block));
    }

    fn busy(&mut self, block: BlockId, busy: bool) {
        self.order(Order::Busy(block, busy));
    }

    fn hold(&mut self, holds: bool) {
        if holds {
            self.standby.send_replace(false);
        }
        self.order(Order::Hold(holds));
    }

    fn stand_by(&mut self) {
        // Not as an order: what is asked of the API server is to rest now, not when the keeper comes to it.
        self.standby.send_replace(true);
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        async move {
            if *self.standby.borrow() {
                // It all rests, and nobody will call for it.
                return;
            }
            // An end is said before what is left is cleared away: the keeper is done with that when it has this order.
            let (reply, answer) = oneshot::channel();
            self.order(Order::Finish(reply));
            let _ = answer.await;
            self.jobs.endings.close();
            self.jobs.endings.wait().await;
        }
        .boxed()
    }
}

impl std::fmt::Debug for KubernetesProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesProvider")
            .field("user_endpoint", &self.jobs.settings.names.user_endpoint())
            .finish_non_exhaustive()
    }
}
