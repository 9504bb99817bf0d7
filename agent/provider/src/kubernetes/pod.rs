//! The pod of a block, from the configuration.
//!
//! Three layers, each merged over the one before as `kubectl apply` would: what we set where nobody says otherwise,
//! the user's `pod_template`, and what the options say or the worker needs.

use std::collections::BTreeMap;

use endpoint_config::SecurityProfile;
use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, LocalObjectReference, PersistentVolumeClaimVolumeSource,
    Pod, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use waypost_engine::BlockId;

use super::layout::{FOLDER_IN_IMAGE, HOME, LINK_FOLDER, PROGRAM_FOLDER};
use super::{KubernetesSettings, command, labels};

/// The worker's container.
pub(super) const WORKER: &str = "worker";
/// The init container that brings the worker's program.
pub(super) const INSTALL: &str = "waypost-install";
/// Volumes of ours begin with this; users' may not.
const OURS: &str = "waypost-";
/// The volume for the worker's program.
const BIN: &str = "waypost-bin";
/// The user and group that a worker runs as where nobody says otherwise.
const USER: i64 = 1000;
/// As POSIX modes go: the pod's own group may read.
const GROUP_MAY_READ: i32 = 0o440;

/// What a pod of this very attempt has and no other.
pub(super) struct Particulars<'a> {
    /// The pod's name, and that of its Secret and block.
    pub(super) name: &'a str,
    /// Which block.
    pub(super) block: BlockId,
    /// Which call made it.
    pub(super) attempt: &'a str,
    /// What the pod is owned by.
    pub(super) owner: OwnerReference,
    /// The release that the endpoint belongs to.
    pub(super) release: Option<&'a str>,
    /// The image that brings the worker's program.
    pub(super) worker_image: &'a str,
}

impl Particulars<'_> {
    /// Whether the worker's program has to be brought into its container, for its image is another than the one that
    /// has it. Where it is the same, the pod is up sooner.
    fn installs(&self, settings: &KubernetesSettings) -> bool {
        self.worker_image != settings.config.image
    }
}

/// The pod of a block.
pub(super) fn pod(settings: &KubernetesSettings, particulars: &Particulars<'_>) -> Pod {
    let template = settings.config.pod_template.as_deref();
    let mut spec = defaults(settings);
    if let Some(template) = template.and_then(|template| template.spec.clone()) {
        spec.merge_from(template);
    }
    let lists = Lists::take(&mut spec);
    spec.merge_from(required(settings, particulars, &spec));
    lists.put_back(settings, &mut spec);
    set_first(&mut spec.containers, WORKER);
    if let Some(init) = &mut spec.init_containers {
        set_first(init, INSTALL);
    }
    Pod {
        metadata: metadata(settings, particulars, template),
        spec: Some(spec),
        status: None,
    }
}

fn set_first(containers: &mut [Container], name: &str) {
    if let Some(index) = containers.iter().position(|container| container.name == name) {
        containers[..=index].rotate_right(1);
    }
}

fn metadata(
    settings: &KubernetesSettings,
    particulars: &Particulars<'_>,
    template: Option<&PodTemplateSpec>,
) -> ObjectMeta {
    let given = template
        .and_then(|template| template.metadata.clone())
        .unwrap_or_default();
    let mut all_labels = given.labels.unwrap_or_default();
    all_labels.extend(settings.config.labels.clone());
    if let Some(release) = particulars.release {
        all_labels.insert(labels::INSTANCE.to_owned(), release.to_owned());
    }
    all_labels.extend(labels::of_block(
        settings.endpoint_id,
        settings.names.user_endpoint(),
        particulars.block,
    ));
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.extend(settings.config.annotations.clone());
    annotations.insert(labels::ATTEMPT.to_owned(), particulars.attempt.to_owned());
    // It is asked for because there is work; the annotations go once it is idle.
    for (key, value) in labels::BUSY {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    ObjectMeta {
        name: Some(particulars.name.to_owned()),
        namespace: Some(settings.config.namespace.clone()),
        labels: Some(all_labels),
        annotations: Some(annotations),
        owner_references: Some(vec![particulars.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// What a pod has where neither options nor template say otherwise.
fn defaults(settings: &KubernetesSettings) -> PodSpec {
    let config = &settings.config;
    let chosen = |id: Option<i64>| id.or_else(|| (!config.assigned_user).then_some(USER));
    let (user, group) = (chosen(config.user_id), chosen(config.group_id));
    let writable = SecurityContext {
        run_as_user: user,
        run_as_group: group,
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    };
    PodSpec {
        security_context: Some(PodSecurityContext {
            fs_group: group,
            fs_group_change_policy: group.map(|_| "OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        containers: vec![Container {
            name: WORKER.to_owned(),
            security_context: Some(match config.security_profile {
                SecurityProfile::Restricted => SecurityContext {
                    read_only_root_filesystem: Some(!config.writable_root),
                    ..restricted(user, group)
                },
                SecurityProfile::Baseline => writable,
                SecurityProfile::Image => SecurityContext {
                    run_as_user: config.user_id,
                    run_as_group: config.group_id,
                    ..writable
                },
            }),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

/// What the standard "restricted" asks of a container.
fn restricted(user: Option<i64>, group: Option<i64>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        run_as_non_root: Some(user != Some(0)),
        run_as_user: user,
        run_as_group: group,
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    }
}

/// What the options say, and what the worker needs.
fn required(settings: &KubernetesSettings, particulars: &Particulars<'_>, below: &PodSpec) -> PodSpec {
    let config = &settings.config;
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: config.service_account_name.clone(),
        termination_grace_period_seconds: Some(i64::try_from(config.termination_grace.as_secs()).unwrap_or(i64::MAX)),
        affinity: config.affinity.clone(),
        priority_class_name: config.priority_class_name.clone(),
        runtime_class_name: config.runtime_class_name.clone(),
        scheduler_name: config.scheduler_name.clone(),
        volumes: Some(volumes(settings, particulars)),
        init_containers: particulars
            .installs(settings)
            .then(|| vec![install(settings, particulars)]),
        containers: vec![worker(settings, particulars, below)],
        ..PodSpec::default()
    }
}

fn install(settings: &KubernetesSettings, particulars: &Particulars<'_>) -> Container {
    let config = &settings.config;
    let user = (!config.assigned_user).then_some(USER);
    Container {
        name: INSTALL.to_owned(),
        image: Some(particulars.worker_image.to_owned()),
        image_pull_policy: config.image_pull_policy.map(|policy| policy.name().to_owned()),
        command: Some(command::install()),
        resources: Some(own_resources(settings)),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            ..restricted(user, user)
        }),
        volume_mounts: Some(vec![mount(BIN, PROGRAM_FOLDER, false)]),
        ..Container::default()
    }
}

fn worker(settings: &KubernetesSettings, particulars: &Particulars<'_>, below: &PodSpec) -> Container {
    let config = &settings.config;
    let mut mounts = vec![
        mount("waypost-link", LINK_FOLDER, true),
        mount("waypost-home", HOME, false),
    ];
    let folder = if particulars.installs(settings) {
        mounts.push(mount(BIN, PROGRAM_FOLDER, true));
        PROGRAM_FOLDER
    } else {
        FOLDER_IN_IMAGE
    };
    let template = below.containers.iter().find(|container| container.name == WORKER);
    let given = template
        .and_then(|worker| worker.volume_mounts.as_deref())
        .unwrap_or_default();
    let taken = |path: &str| {
        let given = given
            .iter()
            .chain(&config.volume_mounts)
            .map(|mount| mount.mount_path.as_str());
        let mut all = given.chain(
            config
                .persistent_volumes
                .iter()
                .map(|volume| volume.mount_path.as_str()),
        );
        all.any(|taken| taken.trim_end_matches('/') == path)
    };
    if !taken("/tmp") {
        mounts.push(mount("waypost-tmp", "/tmp", false));
    }
    let claims = config.persistent_volumes.iter().enumerate();
    mounts.extend(claims.map(|(index, volume)| mount(&claim_name(index), &volume.mount_path, false)));
    mounts.extend(config.volume_mounts.clone());
    // Only what an option says outweighs the template.
    let user = SecurityContext {
        run_as_user: config.user_id,
        run_as_group: config.group_id,
        run_as_non_root: config.run_as_non_root,
        ..SecurityContext::default()
    };
    Container {
        name: WORKER.to_owned(),
        image: Some(config.image.clone()),
        image_pull_policy: config.image_pull_policy.map(|policy| policy.name().to_owned()),
        command: Some(command::shell()),
        args: Some(vec![command::script(settings, particulars.name, folder)]),
        env: Some(environment(settings)),
        env_from: (!config.env_from.is_empty()).then(|| config.env_from.clone()),
        working_dir: Some(HOME.to_owned()),
        // The worker writes a sentence there; what fails before it is told by the last lines of the log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        resources: Some(resources(settings)),
        security_context: Some(user),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn environment(settings: &KubernetesSettings) -> Vec<EnvVar> {
    let plain = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    let mut variables: BTreeMap<String, EnvVar> = [
        plain("HOME", HOME),
        plain("TMPDIR", "/tmp"),
        plain("PYTHONUSERBASE", &format!("{HOME}/.local")),
    ]
    .map(|variable| (variable.name.clone(), variable))
    .into();
    let given = settings.environment.iter().map(|(name, value)| plain(name, value));
    for variable in given.chain(settings.config.env.iter().cloned()) {
        variables.insert(variable.name.clone(), variable);
    }
    variables.into_values().collect()
}

fn quantities<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Quantity> {
    let quantity = |(name, amount): (&str, &str)| (name.to_owned(), Quantity(amount.to_owned()));
    pairs.into_iter().map(quantity).collect()
}

fn resources(settings: &KubernetesSettings) -> ResourceRequirements {
    let config = &settings.config;
    let mut requests = quantities([("cpu", config.init_cpu.text()), ("memory", config.init_mem.text())]);
    let mut limits = quantities([("cpu", config.max_cpu.text()), ("memory", config.max_mem.text())]);
    // An extended resource can not be overcommitted: request and limit are one.
    if let Some(accelerators) = &config.accelerators {
        let count = accelerators.count.to_string();
        requests.extend(quantities([(accelerators.resource.as_str(), count.as_str())]));
        limits.extend(quantities([(accelerators.resource.as_str(), count.as_str())]));
    }
    let extra = |given: &BTreeMap<String, endpoint_config::Quantity>| {
        quantities(given.iter().map(|(name, amount)| (name.as_str(), amount.text())))
    };
    requests.extend(extra(&config.extra_requests));
    limits.extend(extra(&config.extra_limits));
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(limits),
        claims: None,
    }
}

/// Of a container of ours: no more than the worker has, which runs after it, so that the pod asks for nothing beyond.
fn own_resources(settings: &KubernetesSettings) -> ResourceRequirements {
    let config = &settings.config;
    ResourceRequirements {
        requests: Some(quantities([
            ("cpu", config.init_cpu.text()),
            ("memory", config.init_mem.text()),
        ])),
        limits: Some(quantities([
            ("cpu", config.max_cpu.text()),
            ("memory", config.max_mem.text()),
        ])),
        claims: None,
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn claim_name(index: usize) -> String {
    format!("{OURS}claim-{index}")
}

fn volumes(settings: &KubernetesSettings, particulars: &Particulars<'_>) -> Vec<Volume> {
    let config = &settings.config;
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![
        empty("waypost-home"),
        empty("waypost-tmp"),
        Volume {
            name: "waypost-link".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(particulars.name.to_owned()),
                default_mode: Some(GROUP_MAY_READ),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
    ];
    if particulars.installs(settings) {
        volumes.push(empty(BIN));
    }
    let claims = config.persistent_volumes.iter().enumerate();
    volumes.extend(claims.map(|(index, volume)| Volume {
        name: claim_name(index),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: volume.claim.clone(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    volumes.extend(config.volumes.clone());
    volumes
}

/// The lists of a pod that `kubectl apply` would replace as a whole, or that we order: the template's and the options'
/// are joined instead.
#[derive(Default)]
struct Lists {
    template: PodSpec,
}

impl Lists {
    fn take(spec: &mut PodSpec) -> Self {
        Self {
            template: PodSpec {
                tolerations: spec.tolerations.take(),
                topology_spread_constraints: spec.topology_spread_constraints.take(),
                node_selector: spec.node_selector.take(),
                image_pull_secrets: spec.image_pull_secrets.take(),
                init_containers: spec.init_containers.take(),
                ..PodSpec::default()
            },
        }
    }

    fn put_back(self, settings: &KubernetesSettings, spec: &mut PodSpec) {
        let config = &settings.config;
        let template = self.template;
        spec.tolerations = joined(template.tolerations, &config.tolerations);
        spec.topology_spread_constraints = joined(
            template.topology_spread_constraints,
            &config.topology_spread_constraints,
        );
        let mut selector = template.node_selector.unwrap_or_default();
        selector.extend(config.node_selector.clone());
        spec.node_selector = (!selector.is_empty()).then_some(selector);
        let secrets: Vec<LocalObjectReference> = config
            .image_pull_secrets
            .iter()
            .map(|name| LocalObjectReference { name: name.clone() })
            .collect();
        spec.image_pull_secrets = joined(template.image_pull_secrets, &secrets);
        // Ours is first: an init container of the user's may want the program, too.
        let own = spec.init_containers.take().unwrap_or_default();
        let mut init = joined(template.init_containers, &config.init_containers).unwrap_or_default();
        init.retain(|container| container.name != INSTALL);
        spec.init_containers = Some(own.into_iter().chain(init).collect());
        for sidecar in &config.sidecars {
            match spec
                .containers
                .iter_mut()
                .find(|container| container.name == sidecar.name)
            {
                Some(container) => container.merge_from(sidecar.clone()),
                None => spec.containers.push(sidecar.clone()),
            }
        }
    }
}

fn joined<T: Clone + PartialEq>(template: Option<Vec<T>>, options: &[T]) -> Option<Vec<T>> {
    let mut all = template.unwrap_or_default();
    for item in options {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    (!all.is_empty()).then_some(all)
}

/// What a `pod_template` says that it can not: each with its path in the template.
pub(super) fn template_problems(template: &PodTemplateSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let metadata = template.metadata.clone().unwrap_or_default();
    let labels = metadata.labels.iter().flatten().map(|(key, _)| ("labels", key));
    let annotations = metadata
        .annotations
        .iter()
        .flatten()
        .map(|(key, _)| ("annotations", key));
    for (kind, key) in labels.chain(annotations) {
        if key.starts_with(labels::OURS) {
            problems.push(format!(
                "pod_template.metadata.{kind}.{key}: begins with what only the endpoint may set"
            ));
        }
    }
    let Some(spec) = &template.spec else { return problems };
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.name.starts_with(OURS) {
            problems.push(format!(
                "pod_template.spec.volumes[{index}].name: {} is a name of the endpoint's own; take another",
                volume.name
            ));
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = format!("pod_template.spec.containers[{index}]");
        if container.name != WORKER && container.image.is_none() {
            problems.push(format!(
                "{path}.image: is missing; the worker's own container has the name `{WORKER}`"
            ));
        }
        if container.name == WORKER && (container.command.is_some() || container.args.is_some()) {
            problems.push(format!(
                "{path}: command and args of the container `{WORKER}` are the endpoint's; what is to run before the worker goes into worker_init"
            ));
        }
    }
    match spec.restart_policy.as_deref() {
        None | Some("Never") => {}
        Some(other) => problems.push(format!(
            "pod_template.spec.restartPolicy: is {other}; a worker's pod is never restarted, the endpoint starts another"
        )),
    }
    problems
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
