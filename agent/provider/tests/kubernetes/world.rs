//! A namespace on the cluster, a provider in it, and what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use endpoint_config::{ImagePullPolicy, KubernetesProviderConfig, Quantity};
use endpoint_provider::kubernetes::{Cluster, Deployment, KubernetesProvider, KubernetesSettings};
use endpoint_provider::{BlockNames, Provider as _, ProviderEvent};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;
use waypost_engine::{BlockEnd, BlockId, BlockState, StartOutcome, Waiting, WaitingCause};
use waypost_link::BlockToken;

/// Guards only against hanging.
const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const FIRST: BlockId = BlockId { epoch: 1000, number: 1 };
pub(crate) const SECOND: BlockId = BlockId { epoch: 1000, number: 2 };

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set: these tests need a real cluster"))
}

pub(crate) fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect("an amount")
}

/// A namespace of its own, and a provider in it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) settings: KubernetesSettings,
    pub(crate) provider: KubernetesProvider,
    pub(crate) events: mpsc::UnboundedReceiver<ProviderEvent>,
}

impl World {
    pub(crate) async fn new(options: impl FnOnce(&mut KubernetesProviderConfig)) -> Self {
        Self::labelled(json!({}), options).await
    }

    /// Its namespace has these labels.
    pub(crate) async fn labelled(
        labels: serde_json::Value,
        options: impl FnOnce(&mut KubernetesProviderConfig),
    ) -> Self {
        let _ = variable("KUBECONFIG");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await.expect("a cluster");
        let id = Uuid::new_v4();
        let namespace = format!("provider-{}", &id.simple().to_string()[..8]);
        let made: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &made)
            .await
            .expect("a namespace");
        let mut config = KubernetesProviderConfig {
            image: variable("WAYPOST_TEST_IMAGE"),
            namespace: namespace.clone(),
            image_pull_policy: Some(ImagePullPolicy::Never),
            worker_image: Some(variable("WAYPOST_TEST_WORKER_IMAGE")),
            init_cpu: quantity("10m"),
            max_cpu: quantity("500m"),
            init_mem: quantity("16Mi"),
            max_mem: quantity("128Mi"),
            termination_grace: Duration::from_secs(5),
            worker_init: "trap 'exit 0' TERM; echo it is up; sleep 1000 & wait; exit 0".to_owned(),
            ..KubernetesProviderConfig::default()
        };
        options(&mut config);
        let settings = KubernetesSettings {
            endpoint_id: id,
            names: BlockNames::of_release(Uuid::new_v4(), "lab"),
            config,
            addresses: vec!["127.0.0.1:1".to_owned()],
            certificate_pem: "certificate".to_owned(),
            worker_options: Vec::new(),
            environment: BTreeMap::new(),
            working_directory: "tasks".to_owned(),
            token: Arc::new(|name| BlockToken::from_text(&format!("token of {name}"))),
        };
        let (provider, events) = provider(&settings, &client);
        Self {
            client,
            namespace,
            settings,
            provider,
            events,
        }
    }

    /// Lists, takes the queue, and starts the first block.
    pub(crate) async fn begin(options: impl FnOnce(&mut KubernetesProviderConfig)) -> Self {
        let mut world = Self::new(options).await;
        assert_eq!(world.provider.list().await.expect("a list"), []);
        world.provider.hold(true);
        world.provider.start(FIRST);
        world
    }

    async fn next(&mut self) -> ProviderEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("an event comes").expect("the provider lives");
        println!("{event:?}");
        event
    }

    /// The first event of which something is made.
    async fn until<T>(&mut self, found: impl Fn(&ProviderEvent) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            if let Some(found) = found(&event) {
                return found;
            }
        }
    }

    /// What is made of the next state of a block of which something is.
    async fn until_state<T>(&mut self, id: BlockId, found: impl Fn(&BlockState) -> Option<T>) -> T {
        self.until(|event| {
            let ProviderEvent::Observed { block, state } = event else {
                return None;
            };
            if *block == id { found(state) } else { None }
        })
        .await
    }

    pub(crate) async fn started(&mut self) -> StartOutcome {
        self.until(|event| {
            let ProviderEvent::Started { outcome, .. } = event else {
                return None;
            };
            Some(outcome.clone())
        })
        .await
    }

    pub(crate) async fn running(&mut self, id: BlockId) {
        self.until_state(id, |state| (*state == BlockState::Running).then_some(()))
            .await;
    }

    pub(crate) async fn ended(&mut self, id: BlockId) -> BlockEnd {
        self.until_state(id, |state| {
            let BlockState::Ended(end) = state else { return None };
            Some(end.clone())
        })
        .await
    }

    pub(crate) async fn ending(&mut self, id: BlockId) -> BlockEnd {
        self.until_state(id, |state| {
            let BlockState::Ending(end) = state else { return None };
            Some(end.clone())
        })
        .await
    }

    pub(crate) async fn waiting(&mut self, cause: WaitingCause) -> Waiting {
        self.until_state(FIRST, |state| {
            let BlockState::Pending { why: Some(waiting) } = state else {
                return None;
            };
            (waiting.cause == cause).then(|| waiting.clone())
        })
        .await
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until there is no pod and no block's Secret but those.
    pub(crate) async fn left(&self, pods: &[&str]) {
        let selector = ListParams::default().labels("app.kubernetes.io/name=waypost-worker");
        until(&format!("no pods are left but {pods:?}, and no Secrets"), async || {
            let found = self.pods().list(&selector).await.unwrap();
            let names: Vec<String> = found.items.into_iter().filter_map(|pod| pod.metadata.name).collect();
            names == pods && self.secrets().list(&selector).await.unwrap().items.is_empty()
        })
        .await;
    }

    /// Waits until a block's worker has printed something.
    pub(crate) async fn printed(&self, block: BlockId, words: &str) {
        let (name, parameters) = (self.name(block), LogParams::default());
        until(&format!("{name} prints {words:?}"), async || {
            let log = self.pods().logs(&name, &parameters).await;
            log.is_ok_and(|text| text.contains(words))
        })
        .await;
    }

    pub(crate) fn name(&self, block: BlockId) -> String {
        self.settings.names.name(block)
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come about that {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(Client::try_default().await?);
                namespaces.delete(&namespace, &DeleteParams::default()).await?;
                Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
            })
        });
        if let Ok(Err(error)) = deleted.join() {
            eprintln!("the namespace is left: {error}");
        }
    }
}

pub(crate) fn provider(
    settings: &KubernetesSettings,
    client: &Client,
) -> (KubernetesProvider, mpsc::UnboundedReceiver<ProviderEvent>) {
    let deployment = Deployment {
        endpoint_id: settings.endpoint_id,
        ..Deployment::default()
    };
    let cluster = Cluster::with_client(deployment, client.clone());
    let (sender, events) = mpsc::unbounded_channel();
    (KubernetesProvider::new(settings.clone(), cluster, sender), events)
}
