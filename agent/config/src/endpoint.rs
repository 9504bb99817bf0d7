use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::kubernetes::KubernetesProviderConfig;

/// What template and direct endpoints and user endpoints have in common: the keys of upstream's `BaseConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseConfig {
    /// The name that people see; the endpoint's own name if absent.
    pub display_name: Option<String>,
    /// The only functions that may run here; all may if absent.
    pub allowed_functions: Option<Vec<Uuid>>,
    /// The Globus authentication policy that users must meet.
    pub authentication_policy: Option<Uuid>,
    /// The Globus subscription of this endpoint.
    pub subscription_id: Option<Uuid>,
    /// Replaces the port in every AMQP address that the service gives.
    pub amqp_port: Option<u16>,
    /// Time between two heartbeats; at least 5 s.
    pub heartbeat_period: Duration,
    /// Name of the Globus environment, as `GLOBUS_SDK_ENVIRONMENT`.
    pub environment: Option<String>,
    /// Whether the service is the one on this machine's port 5000.
    pub local_compute_services: bool,
    /// Whether debug lines are logged.
    pub debug: bool,
    /// Identities that administer the endpoint beside its owner.
    pub admins: Option<Vec<Uuid>>,
    /// Whether it is a high-assurance endpoint.
    pub high_assurance: bool,
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            display_name: None,
            allowed_functions: None,
            authentication_policy: None,
            subscription_id: None,
            amqp_port: None,
            heartbeat_period: Duration::from_secs(30),
            environment: None,
            local_compute_services: false,
            debug: false,
            admins: None,
            high_assurance: false,
        }
    }
}

/// The `config.yaml` of a template endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ManagerConfig {
    /// The keys that every kind of endpoint has.
    pub base: BaseConfig,
    /// Whether everybody may see that the endpoint exists.
    pub public: bool,
    /// Another place for the template.
    pub user_config_template_path: Option<PathBuf>,
    /// Another place for the schema.
    pub user_config_schema_path: Option<PathBuf>,
    /// Whom to write to about the endpoint.
    pub email: Option<String>,
    /// A user endpoint that ends for idleness so soon after a command is started again: the command was for tasks that
    /// it has not seen (`mu_child_ep_grace_period_s`). At most half of its idle time.
    pub grace: Duration,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            base: BaseConfig::default(),
            public: false,
            user_config_template_path: None,
            user_config_schema_path: None,
            email: None,
            grace: Duration::from_secs(30),
        }
    }
}

/// All that one user endpoint needs to know to run: a rendered template, or the `config.yaml` of a direct endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct UserEndpointConfig {
    /// The keys that every kind of endpoint has.
    pub base: BaseConfig,
    /// What runs the tasks.
    pub engine: EngineConfig,
    /// Silence of the broker after which the connection counts as lost; at least two heartbeat periods.
    pub heartbeat_threshold: Duration,
    /// Heartbeats without outstanding work (after at least one task) until it ends; 0: never.
    pub idle_heartbeats_soft: u32,
    /// Heartbeats without any movement until it ends, outstanding work or not; only if `idle_heartbeats_soft` is not 0.
    pub idle_heartbeats_hard: u32,
    /// Shell commands to run before anything else.
    pub endpoint_setup: Option<String>,
    /// Shell commands to run at the end.
    pub endpoint_teardown: Option<String>,
    /// Environment variables of its workers, beyond those of the agent (`user_environment.yaml`).
    pub environment: BTreeMap<String, String>,
    /// How long the tasks of a silent worker wait for it before they are given up. Ours, not upstream's.
    pub reconnect_grace: Duration,
    /// What happens to a task that a fault interrupted. Ours, not upstream's.
    pub delivery: Delivery,
    /// When a task is acknowledged to the broker (`broker.ack`). Ours, not upstream's.
    pub ack: AckTiming,
}

impl Default for UserEndpointConfig {
    fn default() -> Self {
        Self {
            base: BaseConfig::default(),
            engine: EngineConfig::default(),
            heartbeat_threshold: Duration::from_secs(120),
            idle_heartbeats_soft: 0,
            idle_heartbeats_hard: 5760,
            endpoint_setup: None,
            endpoint_teardown: None,
            environment: BTreeMap::new(),
            reconnect_grace: Duration::from_secs(60),
            delivery: Delivery::AtLeastOnce,
            ack: AckTiming::OnResult,
        }
    }
}

/// What concerns the process as a whole. Read from `config.yaml` of either kind of endpoint; all of it is ours, not upstream's.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessConfig {
    /// The most bytes of tasks and results that are held, shared by all user endpoints.
    pub max_held_bytes: usize,
    /// The most user endpoints that run at once.
    pub max_user_endpoints: usize,
    /// Where `/metrics`, `/livez` and `/readyz` are served; not at all if absent.
    pub http: Option<SocketAddr>,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            max_held_bytes: 256 * 1024 * 1024,
            max_user_endpoints: 100,
            http: None,
        }
    }
}

/// What happens to a task that a fault interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// It may be run again where nobody can know whether it was (`at-least-once`).
    #[default]
    AtLeastOnce,
    /// It ends with an error result rather than be run again (`at-most-once`).
    AtMostOnce,
}

/// When a task is acknowledged to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckTiming {
    /// When its result is confirmed (`on_result`).
    #[default]
    OnResult,
    /// When it is journalled (`on_accept`), for services that do not bear late acknowledgement.
    OnAccept,
}

/// The options of a `GlobusComputeEngine` that have a meaning here.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Names log lines and heartbeats.
    pub label: Option<String>,
    /// Slots of a block. Absent: as many as cores allow by `cores_per_worker`, memory by `mem_per_worker`.
    pub max_workers_per_node: Option<u32>,
    /// Cores that one slot needs; may be a fraction.
    pub cores_per_worker: f64,
    /// Memory that one slot may use, in GB (10^9 bytes), as upstream counts.
    pub mem_per_worker: Option<f64>,
    /// Tasks that a worker may hold beyond those that run; 0 lets the agent choose.
    pub prefetch_capacity: u32,
    /// How often a task is started again after a worker was lost under it.
    pub max_retries_on_system_failure: u32,
    /// Where tasks run; relative to the user endpoint's directory.
    pub working_dir: String,
    /// Whether each task gets a folder of its own.
    pub run_in_sandbox: bool,
    /// Import paths (or the wildcards `globus_compute_sdk.*Code`, `globus_compute_sdk.*Data`) that tasks may be packed with; all if absent.
    pub allowed_serializers: Option<Vec<String>>,
    /// Whether the link to workers on other machines is encrypted.
    pub encrypted: bool,
    /// Names of accelerators to hand out, one for each slot.
    pub available_accelerators: Vec<String>,
    /// How the number of blocks follows the tasks.
    pub strategy: ScalingStrategy,
    /// How long a block may be idle before it is drained.
    pub max_idletime: Duration,
    /// What launches blocks.
    pub provider: ProviderConfig,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            label: None,
            max_workers_per_node: None,
            cores_per_worker: 1.0,
            mem_per_worker: None,
            prefetch_capacity: 0,
            max_retries_on_system_failure: 0,
            working_dir: "tasks_working_dir".to_owned(),
            run_in_sandbox: false,
            allowed_serializers: None,
            encrypted: true,
            available_accelerators: Vec::new(),
            strategy: ScalingStrategy::Simple,
            max_idletime: Duration::from_secs(120),
            provider: ProviderConfig::Local(LocalProviderConfig::default()),
        }
    }
}

/// `job_status_kwargs.strategy`, by upstream's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScalingStrategy {
    /// `init_blocks` only (`none`).
    None,
    /// Upstream scales in only when no task is left. Here both strategies drain each block that is idle for long enough.
    #[default]
    Simple,
    /// Scales in block by block (`htex_auto_scale`).
    HtexAutoScale,
}

/// What launches blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderConfig {
    /// Processes on this machine.
    Local(LocalProviderConfig),
    /// Pods.
    Kubernetes(Box<KubernetesProviderConfig>),
}

impl ProviderConfig {
    /// The provider's class name in configuration and heartbeats.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Local(_) => "LocalProvider",
            Self::Kubernetes(_) => "KubernetesProvider",
        }
    }

    /// Whether its blocks live on when the agent's machine goes, so that a SIGTERM leaves them to the next agent.
    #[must_use]
    pub const fn outlives_agent(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Kubernetes(_) => true,
        }
    }

    /// How many blocks there may be, which every provider says in the same words.
    #[must_use]
    pub fn blocks(&self) -> BlockNumbers {
        match self {
            Self::Local(config) => BlockNumbers {
                init_blocks: config.init_blocks,
                min_blocks: config.min_blocks,
                max_blocks: config.max_blocks,
                parallelism: config.parallelism,
                nodes_per_block: config.nodes_per_block,
            },
            Self::Kubernetes(config) => BlockNumbers {
                init_blocks: config.init_blocks,
                min_blocks: config.min_blocks,
                max_blocks: config.max_blocks,
                parallelism: config.parallelism,
                nodes_per_block: config.nodes_per_block,
            },
        }
    }
}

/// The options by which every provider says how many blocks there may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockNumbers {
    /// Blocks to start with.
    pub init_blocks: u32,
    /// Blocks to keep.
    pub min_blocks: u32,
    /// Blocks to have at most.
    pub max_blocks: u32,
    /// Slots wanted for each outstanding task, 0 to 1.
    pub parallelism: f64,
    /// Nodes of a block.
    pub nodes_per_block: u32,
}

/// The options of a `LocalProvider`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalProviderConfig {
    /// Blocks to start with.
    pub init_blocks: u32,
    /// Blocks to keep.
    pub min_blocks: u32,
    /// Blocks to have at most.
    pub max_blocks: u32,
    /// Slots wanted for each outstanding task, 0 to 1.
    pub parallelism: f64,
    /// Nodes of a block; on one machine always counted as 1 process a node.
    pub nodes_per_block: u32,
    /// Shell commands to run before a block's worker.
    pub worker_init: String,
}

impl Default for LocalProviderConfig {
    fn default() -> Self {
        Self {
            init_blocks: 1,
            min_blocks: 0,
            max_blocks: 1,
            parallelism: 1.0,
            nodes_per_block: 1,
            worker_init: String::new(),
        }
    }
}
