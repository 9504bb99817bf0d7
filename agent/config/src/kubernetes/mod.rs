//! The options of a `KubernetesProvider`.
//!
//! Names, meanings and defaults are Parsl's where Parsl has the option (`parsl.providers.KubernetesProvider`), and those
//! of Kubernetes itself where an option is part of a pod.

mod amounts;
mod names;
mod read;
#[cfg(test)]
mod tests;
mod typed;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, EnvVar, PodTemplateSpec, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};

use super::quantity::Quantity;
pub(super) use read::kubernetes_provider;

/// The options of a `KubernetesProvider`: each block is a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesProviderConfig {
    /// The worker's image.
    pub image: String,
    /// The namespace that pods go to.
    pub namespace: String,
    /// Counts in the number of slots of a block, as upstream; there is one pod in a block all the same.
    pub nodes_per_block: u32,
    /// Blocks to start with.
    pub init_blocks: u32,
    /// Blocks to keep.
    pub min_blocks: u32,
    /// Blocks to have at most.
    pub max_blocks: u32,
    /// Slots wanted for each outstanding task, 0 to 1.
    pub parallelism: f64,
    /// The worker container's limit of cores.
    pub max_cpu: Quantity,
    /// Its limit of memory, in bytes.
    pub max_mem: Quantity,
    /// The cores that it requests.
    pub init_cpu: Quantity,
    /// The memory that it requests, in bytes.
    pub init_mem: Quantity,
    /// Further requests by the resource's name, such as `ephemeral-storage`.
    pub extra_requests: BTreeMap<String, Quantity>,
    /// Further limits by the resource's name.
    pub extra_limits: BTreeMap<String, Quantity>,
    /// Shell commands that run in the worker container before the worker.
    pub worker_init: String,
    /// Stands in place of the release's name at the start of the pods' names.
    pub pod_name: Option<String>,
    /// The user that the worker runs as; the provider's default if absent.
    pub user_id: Option<i64>,
    /// Its group.
    pub group_id: Option<i64>,
    /// Whether `user_id: null` leaves user and group to the platform, which assigns them when the pod is admitted.
    pub assigned_user: bool,
    /// How much the worker's container may do where neither options nor template say otherwise.
    pub security_profile: SecurityProfile,
    /// Whether the kubelet refuses to run the worker as root. Absent: unless `user_id` is 0.
    pub run_as_non_root: Option<bool>,
    /// Secrets to pull images with (`secret`).
    pub image_pull_secrets: Vec<String>,
    /// Claims, and where they are mounted.
    pub persistent_volumes: Vec<PersistentVolume>,
    /// The pods' service account. Its token is not mounted.
    pub service_account_name: Option<String>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// Whether the API server is found by the files of the pod that the agent runs in. Absent: if it runs in one.
    pub incluster_config: Option<bool>,

    /// Labels of the pods, beside our own. From here on: ours, not upstream's.
    pub labels: BTreeMap<String, String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are borne.
    pub tolerations: Vec<Toleration>,
    /// What the scheduler is to prefer or to require.
    pub affinity: Option<Affinity>,
    /// How pods are spread over nodes and zones.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The pods' priority class.
    pub priority_class_name: Option<String>,
    /// The pods' runtime class.
    pub runtime_class_name: Option<String>,
    /// The scheduler, if not the cluster's default.
    pub scheduler_name: Option<String>,
    /// Environment variables of the worker container; may come from Secrets and ConfigMaps.
    pub env: Vec<EnvVar>,
    /// Whole Secrets and ConfigMaps as environment variables.
    pub env_from: Vec<EnvFromSource>,
    /// Volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Where the worker container mounts them.
    pub volume_mounts: Vec<VolumeMount>,
    /// Containers that run before the worker.
    pub init_containers: Vec<Container>,
    /// Containers that run beside the worker. The block ends when the worker does.
    pub sidecars: Vec<Container>,
    /// When the worker's image is pulled; Kubernetes' own rule if absent.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// A pod into which everything else is merged; its container `worker` is the worker's.
    pub pod_template: Option<Box<PodTemplateSpec>>,
    /// Accelerators of a pod, one for each slot.
    pub accelerators: Option<Accelerators>,
    /// What becomes of the waiting tasks when no node takes the pod for `scheduling_timeout`.
    pub on_unschedulable: OnUnschedulable,
    /// How long a pod may wait for a node.
    pub scheduling_timeout: Duration,
    /// How long an image that can not be pulled may stay so.
    pub image_grace: Duration,
    /// From the ask for a pod until its worker runs.
    pub creation_timeout: Duration,
    /// From the start of the worker container until the worker has dialled the agent.
    pub registration_timeout: Duration,
    /// Failed pods that are kept for inspection.
    pub keep_failed_pods: KeptPods,
    /// Idle blocks to hold ready beyond what the tasks need.
    pub min_idle_blocks: u32,
    /// The most cores that all blocks may request together.
    pub max_cores: Option<f64>,
    /// The most memory that all blocks may request together, in bytes.
    pub max_memory: Option<f64>,
    /// How long a worker may go on after it was told to end.
    pub termination_grace: Duration,
    /// Whether the worker's root file system can be written to.
    pub writable_root: bool,
    /// The image that brings the `worker` program into the pod; the deployment's if absent.
    pub worker_image: Option<String>,
}

/// A claim and the path that it is mounted at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistentVolume {
    /// The claim's name.
    pub claim: String,
    /// An absolute path in the worker container.
    pub mount_path: String,
}

/// Extended resources of which each slot gets one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerators {
    /// The resource's name; `nvidia.com/gpu` if only a number is given.
    pub resource: String,
    /// How many of them a pod has.
    pub count: u32,
}

/// What becomes of waiting tasks when no node takes a pod in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnschedulable {
    /// They end with the scheduler's words (`fail`).
    #[default]
    Fail,
    /// They wait on (`wait`).
    Wait,
}

/// How much a worker's container may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityProfile {
    /// What the Pod Security standard of that name asks for, and a read-only root file system (`restricted`).
    #[default]
    Restricted,
    /// What the standard of that name allows: the image's capabilities, and a root file system that can be written to
    /// (`baseline`).
    Baseline,
    /// The same, as the image's own user, which may be root (`image`).
    Image,
}

/// When an image is pulled, by the names of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At each start of a container.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl ImagePullPolicy {
    /// As it stands in a pod.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// How many failed pods are kept, and for how long. By default none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPods {
    /// The most that are kept; the oldest goes first.
    pub count: u32,
    /// How long each is kept.
    pub age: Duration,
}

impl Default for KeptPods {
    fn default() -> Self {
        Self {
            count: 0,
            age: Duration::from_secs(3600),
        }
    }
}

impl Default for KubernetesProviderConfig {
    /// The defaults, without an image.
    fn default() -> Self {
        Self {
            image: String::new(),
            namespace: "default".to_owned(),
            nodes_per_block: 1,
            init_blocks: 4,
            min_blocks: 0,
            max_blocks: 10,
            parallelism: 1.0,
            max_cpu: Quantity::fixed("2", 2.0),
            max_mem: Quantity::fixed("500Mi", 500.0 * 1024.0 * 1024.0),
            init_cpu: Quantity::fixed("1", 1.0),
            init_mem: Quantity::fixed("250Mi", 250.0 * 1024.0 * 1024.0),
            extra_requests: BTreeMap::new(),
            extra_limits: BTreeMap::new(),
            worker_init: String::new(),
            pod_name: None,
            user_id: None,
            group_id: None,
            assigned_user: false,
            security_profile: SecurityProfile::Restricted,
            run_as_non_root: None,
            image_pull_secrets: Vec::new(),
            persistent_volumes: Vec::new(),
            service_account_name: None,
            annotations: BTreeMap::new(),
            incluster_config: None,
            labels: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            priority_class_name: None,
            runtime_class_name: None,
            scheduler_name: None,
            env: Vec::new(),
            env_from: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            init_containers: Vec::new(),
            sidecars: Vec::new(),
            image_pull_policy: None,
            pod_template: None,
            accelerators: None,
            on_unschedulable: OnUnschedulable::Fail,
            scheduling_timeout: Duration::from_secs(600),
            image_grace: Duration::from_secs(30),
            creation_timeout: Duration::from_secs(600),
            registration_timeout: Duration::from_secs(300),
            keep_failed_pods: KeptPods::default(),
            min_idle_blocks: 0,
            max_cores: None,
            max_memory: None,
            termination_grace: Duration::from_secs(60),
            writable_root: false,
            worker_image: None,
        }
    }
}
