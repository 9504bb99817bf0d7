//! What is done for one block at the API server, each from its beginning to an outcome that is known.

use std::sync::Arc;
use std::time::Duration;

use endpoint_back_off::BackOff;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::{Api, Client, Resource as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost_engine::{BlockEnd, BlockEndKind, BlockId, Waiting};

use super::api::{ApiError, call};
use super::cluster::Cluster;
use super::observed::ObservedPod;
use super::pod::{self, Particulars};
use super::{KubernetesSettings, explain, labels, permissions, refusal, secret};

/// Between attempts at what nobody knows the outcome of.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long the last lines of a block are waited for: its tasks are told after.
const LOG_PATIENCE: Duration = Duration::from_secs(3);
const LOG_LINES: i64 = 20;
const LOG_BYTES: i64 = 8 * 1024;
/// Events about one pod that are looked at.
const EVENTS_MAX: u32 = 50;

/// What became of the start of a block.
#[derive(Debug)]
pub(super) enum Creation {
    /// Its pod exists.
    Made {
        /// The pod's unique id.
        uid: String,
    },
    /// It does not, and never will.
    Failed(BlockEnd),
    /// It was not wanted any more before the outcome was known: it may exist.
    Abandoned,
}

/// What became of the deletion of a block's pod.
#[derive(Debug)]
pub(super) enum Removal {
    /// The API server has taken it: the pod will be gone.
    Taken,
    /// There is no such pod.
    Absent,
    /// The API server will not have it.
    Refused(ApiError),
    /// It was not wanted any more before the outcome was known.
    Abandoned,
}

/// The API as the jobs of one user endpoint use it.
#[derive(Clone)]
pub(super) struct Jobs {
    pub(super) settings: Arc<KubernetesSettings>,
    pub(super) cluster: Arc<Cluster>,
    /// Whether another agent has the task queue, and the pods with it.
    pub(super) standby: watch::Receiver<bool>,
    /// What is under way that would be left undone if the process ended.
    pub(super) endings: TaskTracker,
}

impl Jobs {
    pub(super) async fn client(&self) -> Result<Client, ApiError> {
        self.cluster.client(self.settings.config.incluster_config).await
    }

    fn namespace(&self) -> &str {
        &self.settings.config.namespace
    }

    async fn pods(&self) -> Result<Api<ObservedPod>, ApiError> {
        Ok(Api::namespaced(self.client().await?, self.namespace()))
    }

    async fn secrets(&self) -> Result<Api<Secret>, ApiError> {
        Ok(Api::namespaced(self.client().await?, self.namespace()))
    }

    /// Waits while another agent has the queue. False if what waits is not wanted any more after that: it was given up, or
    /// the user endpoint has ended meanwhile.
    async fn may_act(&self, cancel: &CancellationToken) -> bool {
        let mut standby = self.standby.clone();
        tokio::select! {
            biased;
            over = standby.wait_for(|standby| !standby) => over.is_ok(),
            () = cancel.cancelled() => false,
        }
    }

    /// Waits until another agent has the queue; for ever if the user endpoint ends without that, for its last deletions go
    /// on then.
    async fn must_rest(&self) {
        let mut standby = self.standby.clone();
        if standby.wait_for(|standby| *standby).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The pods of the user endpoint.
    pub(super) async fn list(&self) -> Result<Vec<ObservedPod>, ApiError> {
        let api = self.pods().await?;
        let selector = labels::select_user_endpoint(self.settings.endpoint_id, self.settings.names.user_endpoint());
        let mut parameters = ListParams::default().labels(&selector).limit(500);
        let mut found = Vec::new();
        loop {
            let page = call(self.cluster.requests(), api.list(&parameters)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    /// Makes a block's Secret and then its pod, again and again under the same name as long as nobody knows whether it was
    /// done: what is there already by this attempt is what was wanted. `trouble` hears why it takes so long.
    pub(super) async fn create(
        &self,
        block: BlockId,
        cancel: &CancellationToken,
        trouble: impl Fn(String),
    ) -> Creation {
        let attempt = uuid::Uuid::new_v4().to_string();
        let mut back_off = BackOff::new(BACK_OFF.0, BACK_OFF.1);
        loop {
            if !self.may_act(cancel).await {
                return Creation::Abandoned;
            }
            let tried = tokio::select! {
                biased;
                () = self.must_rest() => continue,
                tried = self.try_create(block, &attempt) => tried,
            };
            match tried {
                Ok(creation) => return creation,
                Err(words) => trouble(words),
            }
            tokio::select! {
                () = cancel.cancelled() => return Creation::Abandoned,
                () = tokio::time::sleep(back_off.next_wait()) => {}
            }
        }
    }

    /// One attempt; the error is why nobody knows.
    async fn try_create(&self, block: BlockId, attempt: &str) -> Result<Creation, String> {
        let name = self.settings.names.name(block);
        let what = format!("its pod {name}");
        let decided = |what: &str, error: ApiError| {
            if error.is_transient() {
                Err(error.to_string())
            } else {
                Ok(Creation::Failed(refusal::end(what, &error)))
            }
        };
        let cannot = |words: String| Creation::Failed(BlockEnd::new(BlockEndKind::CannotStart, words));
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return decided(&what, error),
        };
        let owner = match self.cluster.owner(&client, self.namespace()).await {
            Ok(owner) => owner,
            Err(error) if error.is_transient() => return Err(error.to_string()),
            Err(error) => return Ok(cannot(format!("{what} could not be created: {error}"))),
        };
        let Some(worker_image) = self.settings.worker_image(self.cluster.deployment()) else {
            return Ok(cannot(super::NO_WORKER_IMAGE.to_owned()));
        };
        let secret = secret::secret(&self.settings, &name, block, owner.clone());
        let secrets: Api<Secret> = Api::namespaced(client.clone(), self.namespace());
        match call(self.cluster.requests(), secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => {}
            // Names are used once: it is this attempt's, of a call whose answer was lost.
            Err(ApiError::Answered(status)) if status.is_already_exists() => {}
            Err(error) => return decided(&format!("the Secret of {what}"), error),
        }
        let particulars = Particulars {
            name: &name,
            block,
            attempt,
            owner,
            release: self.cluster.deployment().release.as_deref(),
            worker_image,
        };
        let pod = pod::pod(&self.settings, &particulars);
        let pods: Api<ObservedPod> = Api::namespaced(client.clone(), self.namespace());
        let parameters = PostParams::default();
        let made = create(&client, self.namespace(), &parameters, &pod);
        match call(self.cluster.requests(), made).await {
            Ok(made) => Ok(Creation::Made {
                uid: made.metadata.uid.unwrap_or_default(),
            }),
            Err(ApiError::Answered(status)) if status.code == 409 => self.taken(&pods, &name, attempt).await,
            Err(error) => {
                let decided = decided(&what, error);
                if decided.is_ok() {
                    self.remove_secret(&name).await;
                }
                decided
            }
        }
    }

    /// The name is in use: by this attempt, whose answer was lost, or by something else that keeps it.
    async fn taken(&self, pods: &Api<ObservedPod>, name: &str, attempt: &str) -> Result<Creation, String> {
        match call(self.cluster.requests(), pods.get(name)).await {
            Ok(pod) => {
                let ours = labels::annotation(&pod.metadata, labels::ATTEMPT) == Some(attempt);
                if ours && pod.metadata.deletion_timestamp.is_none() {
                    return Ok(Creation::Made {
                        uid: pod.metadata.uid.unwrap_or_default(),
                    });
                }
                let why = if ours {
                    "it was deleted while it was being created"
                } else {
                    "another pod has its name"
                };
                Ok(Creation::Failed(BlockEnd::new(
                    BlockEndKind::CannotStart,
                    format!("its pod {name} could not be created: {why}"),
                )))
            }
            // It was being deleted, and is gone now: the next attempt finds the name free.
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the API server would take a pod as the configuration says it.
    pub(super) async fn dry_run(&self, block: BlockId) -> Result<(), ApiError> {
        let client = self.client().await?;
        let name = self.settings.names.name(block);
        let owner = match self.cluster.owner(&client, self.namespace()).await {
            Ok(owner) => owner,
            Err(super::anchor::AnchorError::Api { source, .. }) => return Err(source),
            Err(missing) => return Err(ApiError::Unusable(missing.to_string())),
        };
        let particulars = Particulars {
            name: &name,
            block,
            attempt: "dry-run",
            owner,
            release: self.cluster.deployment().release.as_deref(),
            worker_image: self
                .settings
                .worker_image(self.cluster.deployment())
                .ok_or_else(|| ApiError::Unusable(super::NO_WORKER_IMAGE.to_owned()))?,
        };
        let pod = pod::pod(&self.settings, &particulars);
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let made = create(&client, self.namespace(), &parameters, &pod);
        call(self.cluster.requests(), made).await?;
        Ok(())
    }

    /// What the account may not do, in words.
    pub(super) async fn missing_permissions(&self) -> Result<Option<String>, ApiError> {
        let client = self.client().await?;
        permissions::missing(&client, self.cluster.requests(), self.namespace()).await
    }

    /// Deletes a pod: asked until the API server has an answer. With `uid` no other pod of the name is meant.
    pub(super) async fn remove(&self, name: &str, uid: Option<String>, cancel: &CancellationToken) -> Removal {
        let mut back_off = BackOff::new(BACK_OFF.0, BACK_OFF.1);
        let parameters = DeleteParams {
            preconditions: uid.map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let delete = async || call(self.cluster.requests(), self.pods().await?.delete(name, &parameters)).await;
        loop {
            if !self.may_act(cancel).await {
                return Removal::Abandoned;
            }
            let deleted = tokio::select! {
                biased;
                () = cancel.cancelled() => return Removal::Abandoned,
                () = self.must_rest() => continue,
                deleted = delete() => deleted,
            };
            match deleted {
                Ok(_) => return Removal::Taken,
                Err(error) if error.is_missing() => return Removal::Absent,
                // Another pod has the name: ours is gone.
                Err(ApiError::Answered(status)) if status.code == 409 => return Removal::Absent,
                Err(error) if error.is_transient() => {
                    tracing::debug!(pod = name, %error, "a pod can not be deleted yet; tried again");
                    tokio::time::sleep(back_off.next_wait()).await;
                }
                Err(error) => return Removal::Refused(error),
            }
        }
    }

    /// Deletes a block's Secret. A few attempts: what is left is swept by the next agent, or goes with the anchor.
    pub(super) async fn remove_secret(&self, name: &str) {
        let mut back_off = BackOff::new(BACK_OFF.0, BACK_OFF.1);
        for _ in 0..8 {
            let deleted = match self.secrets().await {
                Ok(api) => call(self.cluster.requests(), api.delete(name, &DeleteParams::default())).await,
                Err(error) => Err(error),
            };
            match deleted {
                Ok(_) => return,
                Err(error) if error.is_missing() => return,
                Err(error) if error.is_transient() => tokio::time::sleep(back_off.next_wait()).await,
                Err(error) => {
                    tracing::warn!(secret = name, %error, "a block's Secret can not be deleted");
                    return;
                }
            }
        }
    }

    /// The names of the Secrets of the user endpoint's blocks. Their contents are not read.
    pub(super) async fn list_secrets(&self) -> Result<Vec<(String, BlockId)>, ApiError> {
        let api = self.secrets().await?;
        let selector = labels::select_user_endpoint(self.settings.endpoint_id, self.settings.names.user_endpoint());
        let found = call(
            self.cluster.requests(),
            api.list_metadata(&ListParams::default().labels(&selector)),
        )
        .await?;
        let named = found.items.into_iter().filter_map(|secret| {
            let block = labels::block(&secret.metadata)?;
            Some((secret.metadata.name?, block))
        });
        Ok(named.collect())
    }

    /// A pod as it is now; `None` if it is not there.
    pub(super) async fn read(&self, name: &str) -> Result<Option<ObservedPod>, ApiError> {
        let api = self.pods().await?;
        match call(self.cluster.requests(), api.get(name)).await {
            Ok(pod) => Ok(Some(pod)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last lines that a container printed; empty if there are none, or none in time.
    pub(super) async fn last_lines(&self, name: &str, container: &str) -> String {
        let Ok(api) = self.pods().await else {
            return String::new();
        };
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(LOG_BYTES),
            ..LogParams::default()
        };
        let read = async {
            self.cluster.requests().permit().await;
            api.logs(name, &parameters).await
        };
        match tokio::time::timeout(LOG_PATIENCE, read).await {
            // The kubelet says so in place of a log whose container is removed already.
            Ok(Ok(text)) if text.starts_with("unable to retrieve container logs for ") => String::new(),
            Ok(Ok(text)) => text.trim_end().to_owned(),
            Ok(Err(error)) => {
                tracing::debug!(pod = name, %error, "the last lines of a pod can not be read");
                String::new()
            }
            Err(_) => String::new(),
        }
    }

    /// What the Events about a pod say of why it does not start; nothing if they are not asked for now.
    pub(super) async fn waiting_by_events(&self, uid: &str) -> Option<Waiting> {
        let looks = self.cluster.looks();
        if !looks.is_due(self.namespace()).await {
            return None;
        }
        let client = self.client().await.ok()?;
        let api: Api<Event> = Api::namespaced(client, self.namespace());
        let parameters = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(EVENTS_MAX);
        let mut events = match call(self.cluster.requests(), api.list(&parameters)).await {
            Ok(list) => list.items,
            Err(error) => {
                if error.is_forbidden() && looks.refuse(self.namespace()) {
                    tracing::info!(%error, "what only Events say of pods that do not start is not told");
                }
                return None;
            }
        };
        let time = |event: &Event| {
            let series = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref());
            let first = event.event_time.as_ref().map(|time| time.0);
            let last = event.last_timestamp.as_ref().map(|time| time.0);
            series.map(|time| time.0).max(last).max(first)
        };
        events.sort_by_key(|event| std::cmp::Reverse(time(event)));
        events.iter().find_map(|event| {
            let reason = event.reason.as_deref().unwrap_or_default();
            explain::waiting_by_event(reason, event.message.as_deref().unwrap_or_default())
        })
    }

    /// Sets annotations of a pod, or removes those without a value. Nothing depends on it.
    pub(super) async fn annotate(&self, name: &str, annotations: &[(&str, Option<&str>)]) {
        let Ok(api) = self.pods().await else { return };
        let annotations: serde_json::Map<String, serde_json::Value> = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), serde_json::Value::from(*value)))
            .collect();
        let patch = serde_json::json!({ "metadata": { "annotations": annotations } });
        self.cluster.annotations().permit().await;
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = api.patch_metadata(name, &parameters, &patch);
        if let Err(error) = call(self.cluster.requests(), patched).await
            && !error.is_missing()
        {
            tracing::debug!(pod = name, %error, "a pod can not be annotated");
        }
    }
}

/// Makes a pod; of the answer only what is looked at is read.
async fn create(client: &Client, namespace: &str, parameters: &PostParams, pod: &Pod) -> kube::Result<ObservedPod> {
    // By way of a `Value`: what makes one of each part of a pod was compiled with the configuration, which reads them.
    let object = serde_json::to_value(pod).map_err(kube::Error::SerdeError)?;
    let request = Request::new(ObservedPod::url_path(&(), Some(namespace)))
        .create(parameters, object.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
