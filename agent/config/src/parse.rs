//! `config.yaml` and rendered templates into typed values. Keys, defaults and rules are upstream's
//! (`globus_compute_endpoint.endpoint.config`, 4.19; for direct endpoints also 3.16), and ours where it is said.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::{
    AckTiming, BaseConfig, Delivery, EngineConfig, ManagerConfig, ProcessConfig, UserEndpointConfig,
};
use super::engine::engine;
use super::python;
use super::reader::{Findings, Problem, Section};
use super::yaml::{self, Value};

/// What a `config.yaml` describes.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum Configuration {
    /// It has no `engine`: user endpoints are started by commands, from a template.
    Template(ManagerConfig),
    /// It has an `engine`: the endpoint runs tasks itself.
    Direct(UserEndpointConfig),
}

impl Configuration {
    /// The keys that both kinds have.
    #[must_use]
    pub fn base(&self) -> &BaseConfig {
        match self {
            Self::Template(config) => &config.base,
            Self::Direct(config) => &config.base,
        }
    }
}

/// A configuration, and what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    /// What was read.
    pub config: T,
    /// Keys without effect and the like: for a warning, not for a refusal.
    pub remarks: Vec<Problem>,
}

/// Why a configuration can not be used: all of its problems at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML.
    #[error("Invalid config syntax: {0}")]
    Syntax(#[from] yaml::YamlError),
    /// It is YAML, and not a configuration.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [line] => format!("the configuration has a problem: {line}"),
        lines => format!(
            "the configuration has {} problems:\n  {}",
            lines.len(),
            lines.join("\n  ")
        ),
    }
}

/// Reads the `config.yaml` of an endpoint of either kind. Files that it names are looked for from `folder` on.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn endpoint_config(text: &str, folder: Option<&Path>) -> Result<Read<(Configuration, ProcessConfig)>, ConfigError> {
    let document = yaml::parse(text)?;
    let mut findings = Findings::in_folder(folder);
    let mut section = Section::open(&document, "", &mut findings);
    let process = process(&mut section, &mut findings);
    let configuration = if section.take("engine").is_some() {
        Configuration::Direct(user_endpoint(&mut section, &mut findings))
    } else {
        Configuration::Template(manager(&mut section, &mut findings))
    };
    section.finish(&mut findings);
    finish((configuration, process), findings)
}

/// Reads the configuration of one user endpoint: a rendered template. Files that it names are looked for from
/// `folder` on.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn user_endpoint_config(text: &str, folder: Option<&Path>) -> Result<Read<UserEndpointConfig>, ConfigError> {
    let document = yaml::parse(text)?;
    let mut findings = Findings::in_folder(folder);
    let mut section = Section::open(&document, "", &mut findings);
    if section.take("engine").is_none() {
        section.problem(&mut findings, "engine", "is missing: it says what runs the tasks");
    }
    if section.has("high_assurance") {
        section.problem(
            &mut findings,
            "high_assurance",
            "may not be specified in a template; contact endpoint administrator",
        );
    }
    let config = user_endpoint(&mut section, &mut findings);
    section.finish(&mut findings);
    finish(config, findings)
}

/// Reads `user_environment.yaml`: variables and their values, which become text as Python's `str` makes it.
/// `HOME`, `USER` and `PWD` are left out.
///
/// # Errors
/// A sentence, if it is not a mapping of names.
pub fn environment_file(text: &str) -> Result<BTreeMap<String, String>, String> {
    match yaml::parse(text).map_err(|error| error.to_string())? {
        Value::Null => Ok(BTreeMap::new()),
        Value::Mapping(entries) => Ok(entries
            .into_iter()
            .map(|(name, value)| (python::yaml_text(&name), python::yaml_text(&value)))
            .filter(|(name, _)| !matches!(name.as_str(), "HOME" | "USER" | "PWD"))
            .collect()),
        other @ (Value::Boolean(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Timestamp(_)
        | Value::Text(_)
        | Value::List(_)) => Err(format!(
            "it must be a mapping of names to values, and is {}",
            other.kind()
        )),
    }
}

fn finish<T>(config: T, findings: Findings) -> Result<Read<T>, ConfigError> {
    if findings.problems.is_empty() {
        Ok(Read {
            config,
            remarks: findings.remarks,
        })
    } else {
        Err(ConfigError::Problems(findings.problems))
    }
}

fn process(section: &mut Section<'_>, findings: &mut Findings) -> ProcessConfig {
    let default = ProcessConfig::default();
    let http = match section.take("http") {
        Some(Value::Text(text)) => {
            let address = listen_address(text);
            if address.is_none() {
                section.problem(
                    findings,
                    "http",
                    "must be an address and a port, such as 127.0.0.1:9464",
                );
            }
            address
        }
        Some(Value::Integer(port)) => {
            let address = u16::try_from(*port)
                .ok()
                .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
            if address.is_none() {
                section.problem(findings, "http", "must be a port from 0 to 65535");
            }
            address
        }
        Some(other) => {
            section.problem(
                findings,
                "http",
                format!(
                    "must be an address and a port, such as 127.0.0.1:9464, and is {}",
                    other.kind()
                ),
            );
            None
        }
        None => default.http,
    };
    ProcessConfig {
        max_held_bytes: section
            .size(findings, "max_held_bytes")
            .unwrap_or(default.max_held_bytes),
        max_user_endpoints: section
            .count(findings, "max_user_endpoints", 1)
            .map_or(default.max_user_endpoints, |count| count as usize),
        http,
    }
}

/// Reads `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`, `:9464` (all addresses) or `9464` (this machine only).
#[must_use]
pub fn listen_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("localhost", text));
    let host = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some(SocketAddr::new(IpAddr::V4(host), port.parse().ok()?))
}

fn base(section: &mut Section<'_>, findings: &mut Findings) -> BaseConfig {
    let default = BaseConfig::default();
    let heartbeat_period = section
        .seconds(findings, "heartbeat_period")
        .unwrap_or(default.heartbeat_period);
    let minimum = Duration::from_secs(5);
    if heartbeat_period < minimum {
        section.remark(findings, "heartbeat_period", "the minimum is 5 s, which is taken");
    }
    let amqp_port = section.count(findings, "amqp_port", 1).and_then(|port| {
        let port = u16::try_from(port).ok();
        if port.is_none() {
            section.problem(findings, "amqp_port", "must be a port from 1 to 65535");
        }
        port
    });
    BaseConfig {
        // Generated configurations of 2023 said `display_name: None`.
        display_name: section.text(findings, "display_name").filter(|name| name != "None"),
        allowed_functions: section.uuids(findings, "allowed_functions"),
        authentication_policy: section.uuid(findings, "authentication_policy"),
        subscription_id: section.uuid(findings, "subscription_id"),
        amqp_port,
        heartbeat_period: heartbeat_period.max(minimum),
        environment: section.text(findings, "environment"),
        local_compute_services: section.boolean(findings, "local_compute_services").unwrap_or(false),
        debug: section.boolean(findings, "debug").unwrap_or(false),
        admins: section.uuids(findings, "admins"),
        high_assurance: high_assurance(section, findings),
    }
}

fn high_assurance(section: &mut Section<'_>, findings: &mut Findings) -> bool {
    let wanted = section.boolean(findings, "high_assurance").unwrap_or(false);
    if wanted {
        section.problem(
            findings,
            "high_assurance",
            "Waypost does not run high-assurance endpoints: remove the key",
        );
    }
    wanted
}

fn manager(section: &mut Section<'_>, findings: &mut Findings) -> ManagerConfig {
    let base = base(section, findings);
    let mut file = |key: &str, findings: &mut Findings| {
        let path = section
            .text(findings, key)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)?;
        if !path.exists() {
            section.problem(findings, key, format!("there is no file {}", path.display()));
        }
        Some(path)
    };
    let user_config_template_path = file("user_config_template_path", findings);
    let user_config_schema_path = file("user_config_schema_path", findings);
    if section.take("identity_mapping_config_path").is_some() {
        section.remark(
            findings,
            "identity_mapping_config_path",
            "has no effect: user endpoints run as the endpoint's own user, for the owner's identities only",
        );
    }
    // Only a high-assurance endpoint writes an audit log, upstream as here.
    section.without_effect(findings, &["audit_log_path"]);
    if let Some(mut pam) = section.section(findings, "pam") {
        if pam.boolean(findings, "enable") == Some(true) {
            pam.problem(
                findings,
                "enable",
                "PAM needs user endpoints of other local users, which Waypost does not start",
            );
        }
        pam.without_effect(findings, &["service_name"]);
        pam.finish(findings);
    }
    removed(
        section,
        findings,
        &["multi_user", "force_mu_allow_same_user", "detach_endpoint"],
    );
    ManagerConfig {
        base,
        public: section.boolean(findings, "public").unwrap_or(false),
        user_config_template_path,
        user_config_schema_path,
        email: section.text(findings, "email"),
        grace: section
            .seconds(findings, "mu_child_ep_grace_period_s")
            .unwrap_or(Duration::from_secs(30)),
    }
}

/// Keys that upstream had once and refuses now; a configuration that still has them means no harm.
fn removed(section: &mut Section<'_>, findings: &mut Findings, keys: &[&str]) {
    for key in keys {
        if section.take(key).is_some() {
            section.remark(findings, key, "was removed from Globus Compute and has no effect");
        }
    }
}

fn user_endpoint(section: &mut Section<'_>, findings: &mut Findings) -> UserEndpointConfig {
    let default = UserEndpointConfig::default();
    let base = base(section, findings);
    let threshold = section
        .seconds(findings, "heartbeat_threshold")
        .unwrap_or(default.heartbeat_threshold);
    let engine = match section.section(findings, "engine") {
        Some(section) => engine(section, findings),
        None => EngineConfig::default(),
    };
    if let Some(mut paths) = section.section(findings, "paths") {
        paths.without_effect(findings, &["endpoint_dir", "endpoint_log"]);
        paths.finish(findings);
    }
    section.without_effect(findings, &["log_dir", "stdout", "stderr"]);
    removed(section, findings, &["multi_user", "detach_endpoint"]);
    let ack = section.section(findings, "broker").and_then(|mut broker| {
        let ack = broker.choice(
            findings,
            "ack",
            &[("on_result", AckTiming::OnResult), ("on_accept", AckTiming::OnAccept)],
        );
        broker.finish(findings);
        ack
    });
    UserEndpointConfig {
        heartbeat_threshold: threshold.max(base.heartbeat_period * 2),
        base,
        engine,
        idle_heartbeats_soft: section.count_or_zero(findings, "idle_heartbeats_soft").unwrap_or(0),
        idle_heartbeats_hard: section
            .count_or_zero(findings, "idle_heartbeats_hard")
            .unwrap_or(default.idle_heartbeats_hard),
        endpoint_setup: section.text(findings, "endpoint_setup"),
        endpoint_teardown: section.text(findings, "endpoint_teardown"),
        environment: default.environment,
        reconnect_grace: section
            .seconds(findings, "reconnect_grace")
            .unwrap_or(default.reconnect_grace),
        delivery: section
            .choice(
                findings,
                "delivery",
                &[
                    ("at-least-once", Delivery::AtLeastOnce),
                    ("at-most-once", Delivery::AtMostOnce),
                ],
            )
            .unwrap_or_default(),
        ack: ack.unwrap_or_default(),
    }
}
