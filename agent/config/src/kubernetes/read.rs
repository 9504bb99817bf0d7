//! From the YAML of a `KubernetesProvider` to its options.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar, VolumeMount};

use super::amounts::{accelerators, check_budgets, extra, memory_budget, resources};
use super::typed::{pod_template, typed, typed_list};
use super::{
    ImagePullPolicy, KeptPods, KubernetesProviderConfig, OnUnschedulable, PersistentVolume, SecurityProfile, names,
};
use crate::python;
use crate::reader::{Findings, Section};
use crate::yaml::Value;

type Rule = fn(&str) -> Result<(), &'static str>;

/// Reads the provider's options; its `type` was looked at.
pub(crate) fn kubernetes_provider(mut section: Section<'_>, findings: &mut Findings) -> KubernetesProviderConfig {
    let default = KubernetesProviderConfig::default();
    let s = &mut section;
    if !s.has("image") {
        s.problem(findings, "image", "is missing: the image that workers run in");
    }
    let template = pod_template(s, findings);
    let amounts = resources(s, findings, &default, template.as_deref());
    let mut config = KubernetesProviderConfig {
        image: text(s, findings, "image", names::image).unwrap_or_default(),
        namespace: text(s, findings, "namespace", names::dns_label).unwrap_or(default.namespace),
        nodes_per_block: s
            .count(findings, "nodes_per_block", 1)
            .unwrap_or(default.nodes_per_block),
        init_blocks: s.count(findings, "init_blocks", 0).unwrap_or(default.init_blocks),
        min_blocks: s.count(findings, "min_blocks", 0).unwrap_or(default.min_blocks),
        max_blocks: s.count(findings, "max_blocks", 0).unwrap_or(default.max_blocks),
        parallelism: s
            .number(findings, "parallelism", 0.0, 1.0)
            .unwrap_or(default.parallelism),
        max_cpu: amounts.max_cpu,
        max_mem: amounts.max_mem,
        init_cpu: amounts.init_cpu,
        init_mem: amounts.init_mem,
        extra_requests: extra(s, findings, "extra_requests"),
        extra_limits: extra(s, findings, "extra_limits"),
        worker_init: s.text(findings, "worker_init").unwrap_or_default(),
        pod_name: text(s, findings, "pod_name", names::dns_subdomain),
        // Left out it is the default; `null` says that there is to be none.
        assigned_user: s.has("user_id") && s.take("user_id").is_none(),
        security_profile: s
            .choice(
                findings,
                "security_profile",
                &[
                    ("restricted", SecurityProfile::Restricted),
                    ("baseline", SecurityProfile::Baseline),
                    ("image", SecurityProfile::Image),
                ],
            )
            .unwrap_or_default(),
        user_id: id(s, findings, "user_id"),
        group_id: id(s, findings, "group_id"),
        run_as_non_root: s.boolean(findings, "run_as_non_root"),
        image_pull_secrets: secrets(s, findings),
        persistent_volumes: persistent_volumes(s, findings),
        service_account_name: text(s, findings, "service_account_name", names::dns_subdomain),
        annotations: texts(s, findings, "annotations", names::qualified_name, |_| Ok(())),
        incluster_config: s.boolean(findings, "incluster_config"),
        labels: labels(s, findings),
        node_selector: texts(s, findings, "node_selector", names::qualified_name, names::label_value),
        tolerations: typed_list(s, findings, "tolerations"),
        affinity: typed(s, findings, "affinity"),
        topology_spread_constraints: typed_list(s, findings, "topology_spread_constraints"),
        priority_class_name: text(s, findings, "priority_class_name", names::dns_subdomain),
        runtime_class_name: text(s, findings, "runtime_class_name", names::dns_subdomain),
        scheduler_name: text(s, findings, "scheduler_name", names::dns_subdomain),
        env: variables(s, findings),
        env_from: typed_list(s, findings, "env_from"),
        volumes: typed_list(s, findings, "volumes"),
        volume_mounts: mounts(s, findings),
        init_containers: containers(s, findings, "init_containers"),
        sidecars: containers(s, findings, "sidecars"),
        image_pull_policy: s.choice(
            findings,
            "image_pull_policy",
            &[
                ("Always", ImagePullPolicy::Always),
                ("IfNotPresent", ImagePullPolicy::IfNotPresent),
                ("Never", ImagePullPolicy::Never),
            ],
        ),
        pod_template: template,
        accelerators: accelerators(s, findings),
        on_unschedulable: s
            .choice(
                findings,
                "on_unschedulable",
                &[("fail", OnUnschedulable::Fail), ("wait", OnUnschedulable::Wait)],
            )
            .unwrap_or_default(),
        scheduling_timeout: s
            .seconds(findings, "scheduling_timeout")
            .unwrap_or(default.scheduling_timeout),
        image_grace: s.seconds(findings, "image_grace").unwrap_or(default.image_grace),
        creation_timeout: s
            .seconds(findings, "creation_timeout")
            .unwrap_or(default.creation_timeout),
        registration_timeout: s
            .seconds(findings, "registration_timeout")
            .unwrap_or(default.registration_timeout),
        keep_failed_pods: kept(s, findings),
        min_idle_blocks: s
            .count(findings, "min_idle_blocks", 0)
            .unwrap_or(default.min_idle_blocks),
        max_cores: s.number(findings, "max_cores", 0.001, f64::INFINITY),
        max_memory: memory_budget(s, findings),
        termination_grace: s
            .seconds(findings, "termination_grace")
            .unwrap_or(default.termination_grace),
        writable_root: s.boolean(findings, "writable_root").unwrap_or(default.writable_root),
        worker_image: text(s, findings, "worker_image", names::image),
    };
    check(s, findings, &mut config);
    section.finish(findings);
    config
}

/// What can only be said of several options together.
fn check(section: &Section<'_>, findings: &mut Findings, config: &mut KubernetesProviderConfig) {
    for (key, blocks) in [
        ("min_blocks", config.min_blocks),
        ("min_idle_blocks", config.min_idle_blocks),
    ] {
        if blocks > config.max_blocks {
            section.problem(
                findings,
                key,
                format!("is {blocks}, more than max_blocks ({})", config.max_blocks),
            );
        }
    }
    if config.init_blocks > config.max_blocks {
        if section.has("init_blocks") {
            section.remark(
                findings,
                "init_blocks",
                format!("is more than max_blocks ({}), which is taken", config.max_blocks),
            );
        }
        config.init_blocks = config.max_blocks;
    }
    if config.run_as_non_root == Some(true) && config.user_id == Some(0) {
        section.problem(findings, "run_as_non_root", "is true, and user_id is 0, which is root");
    }
    if let Some(accelerators) = &config.accelerators {
        for (key, extra) in [
            ("extra_requests", &config.extra_requests),
            ("extra_limits", &config.extra_limits),
        ] {
            if extra.contains_key(&accelerators.resource) {
                section.problem(
                    findings,
                    &format!("{key}.{}", accelerators.resource),
                    "is what `accelerators` sets; write one of them",
                );
            }
        }
    }
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (key, list) in [
        ("init_containers", &config.init_containers),
        ("sidecars", &config.sidecars),
    ] {
        for (index, container) in list.iter().enumerate() {
            if !container.name.is_empty() && !taken.insert(&container.name) {
                section.problem(
                    findings,
                    &format!("{key}[{index}].name"),
                    format!("there is another container named {}", container.name),
                );
            }
        }
    }
    check_budgets(section, findings, config);
}

fn text(section: &mut Section<'_>, findings: &mut Findings, key: &str, rule: Rule) -> Option<String> {
    let text = section.text(findings, key)?;
    if let Err(rule) = rule(&text) {
        section.problem(findings, key, format!("{rule}, and is {text:?}"));
    }
    Some(text)
}

/// A user's or group's number; upstream takes text, and means a number.
fn id(section: &mut Section<'_>, findings: &mut Findings, key: &str) -> Option<i64> {
    let id = section.count(findings, key, 0)?;
    if id > i32::MAX.unsigned_abs() {
        section.problem(findings, key, format!("must be at most {}", i32::MAX));
    }
    Some(i64::from(id))
}

/// `secret`: one name, or several.
fn secrets(section: &mut Section<'_>, findings: &mut Findings) -> Vec<String> {
    let list = match section.take("secret") {
        None => return Vec::new(),
        Some(Value::List(_)) => section.texts(findings, "secret").unwrap_or_default(),
        Some(_) => section.text(findings, "secret").into_iter().collect(),
    };
    for name in &list {
        if let Err(rule) = names::dns_subdomain(name) {
            section.problem(findings, "secret", format!("a Secret's name {rule}"));
        }
    }
    list
}

/// `persistent_volumes`: pairs of a claim's name and a path, or mappings of the two.
fn persistent_volumes(section: &mut Section<'_>, findings: &mut Findings) -> Vec<PersistentVolume> {
    let key = "persistent_volumes";
    let list = match section.take(key) {
        None => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(other) => {
            section.problem(
                findings,
                key,
                format!("must be a list of pairs [claim, path], and is {}", other.kind()),
            );
            return Vec::new();
        }
    };
    let mut volumes = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{key}[{index}]");
        let Value::List(pair) = value else {
            section.problem(findings, &path, "must be a pair: [claim, path]");
            continue;
        };
        let [Value::Text(claim), Value::Text(mount_path)] = pair.as_slice() else {
            section.problem(findings, &path, "must be a pair of texts: [claim, path]");
            continue;
        };
        if let Err(rule) = names::dns_subdomain(claim) {
            section.problem(findings, &format!("{path}[0]"), format!("a claim's name {rule}"));
        }
        if let Err(rule) = names::mount_path(mount_path) {
            section.problem(findings, &format!("{path}[1]"), rule);
        }
        volumes.push(PersistentVolume {
            claim: claim.clone(),
            mount_path: mount_path.clone(),
        });
    }
    volumes
}

/// A mapping of texts, each checked by a rule for its key and one for its value.
fn texts(
    section: &mut Section<'_>,
    findings: &mut Findings,
    key: &str,
    name_rule: Rule,
    value_rule: Rule,
) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    for (name, value) in section.mapping(findings, key, "names to texts") {
        let path = format!("{key}.{}", python::yaml_text(name));
        let (Value::Text(name), Value::Text(value)) = (name, value) else {
            let wrong = if matches!(name, Value::Text(_)) { value } else { name };
            section.problem(
                findings,
                &path,
                format!("must be text, and is {}; quote it", wrong.kind()),
            );
            continue;
        };
        if let Err(rule) = name_rule(name) {
            section.problem(findings, &path, format!("the name {rule}"));
        }
        if let Err(rule) = value_rule(value) {
            section.problem(findings, &path, format!("the value {rule}"));
        }
        read.insert(name.clone(), value.clone());
    }
    read
}

/// `labels`, but for those by which the agent knows its own pods.
fn labels(section: &mut Section<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let labels = texts(section, findings, "labels", names::qualified_name, names::label_value);
    for name in labels.keys() {
        let ours = name.starts_with("waypost.dev/")
            || matches!(name.as_str(), "app.kubernetes.io/name" | "app.kubernetes.io/managed-by");
        if ours {
            section.problem(findings, &format!("labels.{name}"), "is set by the endpoint itself");
        }
    }
    labels
}

/// `env`: a list as in a container, or a mapping of names to values, of which each is a text, a number, or what stands
/// under `valueFrom` of Kubernetes (`{secretKeyRef: {name: ..., key: ...}}`).
fn variables(section: &mut Section<'_>, findings: &mut Findings) -> Vec<EnvVar> {
    let variables: Vec<EnvVar> = match section.take("env") {
        None => return Vec::new(),
        Some(Value::Mapping(entries)) => {
            let mut section = section.section(findings, "env").unwrap_or_else(Section::empty);
            let mut variables = Vec::new();
            for (name, value) in entries {
                let Value::Text(name) = name else { continue };
                let mut variable = EnvVar {
                    name: name.clone(),
                    ..EnvVar::default()
                };
                match value {
                    Value::Text(text) => variable.value = Some(text.clone()),
                    Value::Integer(_) | Value::Float(_) => variable.value = Some(python::yaml_text(value)),
                    Value::Mapping(_) => variable.value_from = typed(&mut section, findings, name),
                    Value::Null => variable.value = Some(String::new()),
                    other @ (Value::Boolean(_) | Value::Timestamp(_) | Value::List(_)) => section.problem(
                        findings,
                        name,
                        format!("must be text, and is {}; quote it", other.kind()),
                    ),
                }
                variables.push(variable);
            }
            variables
        }
        Some(_) => typed_list(section, findings, "env"),
    };
    let mut seen = BTreeSet::new();
    for variable in &variables {
        let path = format!("env.{}", variable.name);
        if let Err(rule) = names::variable(&variable.name) {
            section.problem(findings, &path, format!("a variable's name {rule}"));
        }
        if !seen.insert(&variable.name) {
            section.problem(findings, &path, "is set twice");
        }
    }
    variables
}

fn mounts(section: &mut Section<'_>, findings: &mut Findings) -> Vec<VolumeMount> {
    let mounts: Vec<VolumeMount> = typed_list(section, findings, "volume_mounts");
    for mount in &mounts {
        if let Err(rule) = names::mount_path(&mount.mount_path) {
            section.problem(
                findings,
                "volume_mounts",
                format!("mountPath {:?} {rule}", mount.mount_path),
            );
        }
        if mount.name.is_empty() {
            section.problem(findings, "volume_mounts", "a mount has no `name` of a volume");
        }
    }
    mounts
}

fn containers(section: &mut Section<'_>, findings: &mut Findings, key: &str) -> Vec<Container> {
    let containers: Vec<Container> = typed_list(section, findings, key);
    for (index, container) in containers.iter().enumerate() {
        let path = format!("{key}[{index}].name");
        if let Err(rule) = names::dns_label(&container.name) {
            section.problem(findings, &path, rule);
        } else if container.name == "worker" || container.name.starts_with("waypost-") {
            section.problem(
                findings,
                &path,
                "is a name of the endpoint's own containers; take another",
            );
        }
        if container.image.as_deref().is_none_or(str::is_empty) {
            section.problem(findings, &format!("{key}[{index}].image"), "is missing");
        }
    }
    containers
}

/// `keep_failed_pods`: a boolean, a number, or `{count, age}` with the age in seconds.
fn kept(section: &mut Section<'_>, findings: &mut Findings) -> KeptPods {
    const SOME: u32 = 10;
    let mut kept = KeptPods::default();
    match section.take("keep_failed_pods") {
        None => {}
        Some(Value::Boolean(keep)) => kept.count = if *keep { SOME } else { 0 },
        Some(Value::Mapping(_)) => {
            if let Some(mut section) = section.section(findings, "keep_failed_pods") {
                kept.count = section.count(findings, "count", 0).unwrap_or(SOME);
                kept.age = section.seconds(findings, "age").unwrap_or(kept.age);
                section.finish(findings);
            }
        }
        Some(_) => kept.count = section.count(findings, "keep_failed_pods", 0).unwrap_or_default(),
    }
    if kept.count > 1000 {
        section.problem(findings, "keep_failed_pods", "must be at most 1000 pods");
    }
    kept
}
