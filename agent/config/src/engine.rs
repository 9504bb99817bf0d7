//! The `engine` block: a `GlobusComputeEngine` with its provider, by upstream's keys.

use super::endpoint::{EngineConfig, LocalProviderConfig, ProviderConfig, ScalingStrategy};
use super::kubernetes::kubernetes_provider;
use super::python;
use super::reader::{Findings, Section};
use super::yaml::Value;

/// Whether a tagged block is of the one type that is offered.
fn check_type(section: &mut Section<'_>, findings: &mut Findings, what: &str, offered: &[&str]) {
    match section.text(findings, "type") {
        None => {
            if !section.has("type") {
                section.problem(
                    findings,
                    "type",
                    format!("is missing; valid options are: {}", offered.join(", ")),
                );
            }
        }
        Some(name) if offered.contains(&name.as_str()) => {}
        Some(name) => section.problem(
            findings,
            "type",
            format!(
                "'{name}' is not a valid {what}. Valid options are: {}",
                offered.join(", ")
            ),
        ),
    }
}

/// Reads the `engine` block.
pub(super) fn engine(mut section: Section<'_>, findings: &mut Findings) -> EngineConfig {
    let default = EngineConfig::default();
    // The engine's type may be left out, as in 3.16.
    if section.has("type") {
        check_type(&mut section, findings, "engine", &["GlobusComputeEngine"]);
    }
    for key in ["enable_mpi_mode", "mpi_launcher"] {
        if section.take(key).is_some_and(|value| *value != Value::Boolean(false)) {
            section.problem(
                findings,
                key,
                "MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead.",
            );
        }
    }
    let mut strategy = None;
    if section.has("strategy") {
        strategy = self::strategy(&mut section, findings);
        section.remark(findings, "strategy", "is deprecated; use `job_status_kwargs.strategy`");
    }
    let mut max_idletime = None;
    if let Some(mut status) = section.section(findings, "job_status_kwargs") {
        if status.has("strategy") {
            strategy = self::strategy(&mut status, findings);
        }
        max_idletime = status.seconds(findings, "max_idletime");
        // Scaling is decided on every change, not periodically.
        status.without_effect(findings, &["strategy_period"]);
        status.finish(findings);
    }
    let provider = match section.section(findings, "provider") {
        Some(provider) => self::provider(provider, findings),
        None => default.provider,
    };
    for key in ["container_type", "container_uri", "container_cmd_options"] {
        if section.take(key).is_some() {
            let what = match &provider {
                ProviderConfig::Local(_) => {
                    "the local provider starts no containers: without this key, tasks would run outside of one"
                        .to_owned()
                }
                ProviderConfig::Kubernetes(_) => format!(
                    "The '{key}' field is not compatible with KubernetesProvider because this provider manages containers internally. Use the provider's 'image'."
                ),
            };
            section.problem(findings, key, what);
        }
    }
    let pod_accelerators = match &provider {
        ProviderConfig::Kubernetes(config) => config
            .accelerators
            .as_ref()
            .map_or(0, |accelerators| accelerators.count),
        ProviderConfig::Local(_) => 0,
    };
    let accelerators = match section.take("available_accelerators") {
        // The containers see theirs by number.
        None => (0..pod_accelerators).map(|index| index.to_string()).collect(),
        Some(Value::Integer(count)) => (0..(*count).clamp(0, 1024)).map(|index| index.to_string()).collect(),
        Some(Value::List(list)) => list.iter().map(python::yaml_text).collect(),
        Some(_) => {
            section.problem(
                findings,
                "available_accelerators",
                "must be a number or a list of names",
            );
            Vec::new()
        }
    };
    if let Some(name) = accelerators
        .iter()
        .find(|name| name.is_empty() || name.contains(char::is_whitespace))
    {
        // The worker is given them in one line.
        let what = format!("has the name {name:?}: a name can not be empty or have spaces in it");
        section.problem(findings, "available_accelerators", what);
    }
    section.without_effect(
        findings,
        &[
            "address",
            "loopback_address",
            "worker_port",
            "worker_ports",
            "worker_port_range",
            "interchange_port_range",
            "storage_access",
            "worker_debug",
            "cpu_affinity",
            "heartbeat_threshold",
            "heartbeat_period",
            "drain_period",
            "poll_period",
            "address_probe_timeout",
            "worker_logdir_root",
            "manager_selector",
            "block_error_handler",
            "endpoint_id",
            "run_dir",
        ],
    );
    let config = EngineConfig {
        label: section.text(findings, "label"),
        max_workers_per_node: section
            .count(findings, "max_workers_per_node", 1)
            .or_else(|| Some(pod_accelerators).filter(|count| *count > 0)),
        cores_per_worker: section
            .number(findings, "cores_per_worker", 0.001, f64::INFINITY)
            .unwrap_or(default.cores_per_worker),
        mem_per_worker: section.number(findings, "mem_per_worker", 0.001, f64::INFINITY),
        prefetch_capacity: section.count(findings, "prefetch_capacity", 0).unwrap_or(0),
        max_retries_on_system_failure: section.count(findings, "max_retries_on_system_failure", 0).unwrap_or(0),
        working_dir: section.text(findings, "working_dir").unwrap_or(default.working_dir),
        run_in_sandbox: section.boolean(findings, "run_in_sandbox").unwrap_or(false),
        allowed_serializers: section.texts(findings, "allowed_serializers"),
        encrypted: section.boolean(findings, "encrypted").unwrap_or(true),
        available_accelerators: accelerators,
        strategy: strategy.unwrap_or_default(),
        max_idletime: max_idletime.unwrap_or(default.max_idletime),
        provider,
    };
    section.finish(findings);
    config
}

fn strategy(section: &mut Section<'_>, findings: &mut Findings) -> Option<ScalingStrategy> {
    section
        .choice(
            findings,
            "strategy",
            &[
                ("none", ScalingStrategy::None),
                ("simple", ScalingStrategy::Simple),
                ("htex_auto_scale", ScalingStrategy::HtexAutoScale),
            ],
        )
        // Python's `None` means the same as the text.
        .or(Some(ScalingStrategy::None))
}

fn provider(mut section: Section<'_>, findings: &mut Findings) -> ProviderConfig {
    let kubernetes = matches!(section.take("type"), Some(Value::Text(name)) if name == "KubernetesProvider");
    check_type(
        &mut section,
        findings,
        "provider",
        &["LocalProvider", "KubernetesProvider"],
    );
    if kubernetes {
        ProviderConfig::Kubernetes(Box::new(kubernetes_provider(section, findings)))
    } else {
        ProviderConfig::Local(local_provider(section, findings))
    }
}

fn local_provider(mut section: Section<'_>, findings: &mut Findings) -> LocalProviderConfig {
    let default = LocalProviderConfig::default();
    if let Some(mut launcher) = section.section(findings, "launcher") {
        check_type(
            &mut launcher,
            findings,
            "launcher for the local provider",
            &["SingleNodeLauncher", "SimpleLauncher"],
        );
        launcher.without_effect(findings, &["debug", "fail_on_any"]);
        launcher.finish(findings);
    }
    section.without_effect(findings, &["cmd_timeout"]);
    let mut config = LocalProviderConfig {
        init_blocks: section.count(findings, "init_blocks", 0).unwrap_or(default.init_blocks),
        min_blocks: section.count(findings, "min_blocks", 0).unwrap_or(default.min_blocks),
        max_blocks: section.count(findings, "max_blocks", 0).unwrap_or(default.max_blocks),
        parallelism: section
            .number(findings, "parallelism", 0.0, 1.0)
            .unwrap_or(default.parallelism),
        nodes_per_block: section
            .count(findings, "nodes_per_block", 1)
            .unwrap_or(default.nodes_per_block),
        worker_init: section.text(findings, "worker_init").unwrap_or_default(),
    };
    if config.min_blocks > config.max_blocks {
        section.problem(
            findings,
            "min_blocks",
            format!("is {}, more than max_blocks ({})", config.min_blocks, config.max_blocks),
        );
    }
    if config.init_blocks > config.max_blocks {
        section.remark(
            findings,
            "init_blocks",
            format!("is more than max_blocks ({}), which is taken", config.max_blocks),
        );
        config.init_blocks = config.max_blocks;
    }
    section.finish(findings);
    config
}
