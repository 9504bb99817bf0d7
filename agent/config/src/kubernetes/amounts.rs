//! Requests, limits and budgets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{Accelerators, KubernetesProviderConfig, names};
use crate::quantity::Quantity;
use crate::reader::{Findings, Section};
use crate::yaml::Value;

/// The resource that a bare number of accelerators means.
const GPU: &str = "nvidia.com/gpu";

/// The name of the worker's container in a `pod_template`.
const WORKER: &str = "worker";

/// The four amounts that every worker has.
pub(super) struct Resources {
    pub(super) max_cpu: Quantity,
    pub(super) max_mem: Quantity,
    pub(super) init_cpu: Quantity,
    pub(super) init_mem: Quantity,
}

/// Reads requests and limits of cores and memory. An option goes before what the worker's container has in the
/// `pod_template`, and that before the default. A default gives way to what is written beside it, but what is written in
/// an option has the default limit above it.
pub(super) fn resources(
    section: &mut Section<'_>,
    findings: &mut Findings,
    default: &KubernetesProviderConfig,
    template: Option<&PodTemplateSpec>,
) -> Resources {
    let template = Template::of(template);
    let mut pair = |resource: &str, keys: [&str; 2], defaults: [&Quantity; 2], example: &str| {
        let [init, max] = keys;
        let [default_init, default_max] = defaults;
        let given_limit = quantity(section, findings, max, example);
        let given_request = quantity(section, findings, init, example);
        let template_limit = template.amount(section, findings, Kind::Limits, resource);
        let template_request = template.amount(section, findings, Kind::Requests, resource);
        let key = if given_request.is_some() { init } else { "pod_template" };
        let limit = match (&given_limit, &template_limit) {
            (Some(limit), _) => (limit.clone(), ""),
            (None, Some(limit)) => (limit.clone(), ", the pod_template's"),
            (None, None) => match &template_request {
                Some(request) if given_request.is_none() && request.value() > default_max.value() => {
                    (request.clone(), "")
                }
                Some(_) | None => (default_max.clone(), ", the default"),
            },
        };
        let (limit, note) = limit;
        let request = match given_request.or(template_request) {
            Some(request) => {
                if request.value() > limit.value() {
                    let what = if key == init {
                        format!("is {request}, more than {max} ({limit}{note})")
                    } else {
                        format!("requests {request} of {resource}, more than {max} ({limit}{note})")
                    };
                    section.problem(findings, key, what);
                }
                request
            }
            None if default_init.value() > limit.value() => limit.clone(),
            None => default_init.clone(),
        };
        (request, limit)
    };
    let (init_cpu, max_cpu) = pair(
        "cpu",
        ["init_cpu", "max_cpu"],
        [&default.init_cpu, &default.max_cpu],
        "2 or 500m",
    );
    let (init_mem, max_mem) = pair(
        "memory",
        ["init_mem", "max_mem"],
        [&default.init_mem, &default.max_mem],
        "1600Mi or 2G",
    );
    Resources {
        max_cpu,
        max_mem,
        init_cpu,
        init_mem,
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Requests,
    Limits,
}

/// What a `pod_template` says of the worker's container.
struct Template {
    requests: BTreeMap<String, ApiQuantity>,
    limits: BTreeMap<String, ApiQuantity>,
}

impl Template {
    fn of(template: Option<&PodTemplateSpec>) -> Self {
        let spec = template.and_then(|template| template.spec.as_ref());
        let worker = spec.and_then(|spec| spec.containers.iter().find(|container| container.name == WORKER));
        let resources = worker.and_then(|worker| worker.resources.clone()).unwrap_or_default();
        Self {
            requests: resources.requests.unwrap_or_default(),
            limits: resources.limits.unwrap_or_default(),
        }
    }

    fn amount(&self, section: &Section<'_>, findings: &mut Findings, kind: Kind, resource: &str) -> Option<Quantity> {
        let (of, kind) = match kind {
            Kind::Requests => (&self.requests, "requests"),
            Kind::Limits => (&self.limits, "has a limit of"),
        };
        let text = &of.get(resource)?.0;
        let quantity = Quantity::parse(text).filter(|quantity| quantity.value() > 0.0);
        if quantity.is_none() {
            let what =
                format!("{kind} {text:?} of {resource} in the container `{WORKER}`: it must be an amount above 0");
            section.problem(findings, "pod_template", what);
        }
        quantity
    }
}

/// An amount above zero.
fn quantity(section: &mut Section<'_>, findings: &mut Findings, key: &str, example: &str) -> Option<Quantity> {
    let value = section.take(key)?;
    let quantity = amount(value).filter(|quantity| quantity.value() > 0.0);
    if quantity.is_none() {
        section.problem(findings, key, format!("must be an amount above 0, such as {example}"));
    }
    quantity
}

fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::Integer(number) => Quantity::parse(&number.to_string()),
        Value::Float(number) => Quantity::parse(&number.to_string()),
        Value::Text(text) => Quantity::parse(text.trim()),
        Value::Null | Value::Boolean(_) | Value::Timestamp(_) | Value::List(_) | Value::Mapping(_) => None,
    }
}

/// `extra_requests` and `extra_limits`: amounts by the resource's name.
pub(super) fn extra(section: &mut Section<'_>, findings: &mut Findings, key: &str) -> BTreeMap<String, Quantity> {
    let mut read = BTreeMap::new();
    for (name, value) in section.mapping(findings, key, "resources to amounts") {
        let Value::Text(name) = name else {
            section.problem(findings, &format!("{key}.{name}"), "a resource's name must be text");
            continue;
        };
        let path = format!("{key}.{name}");
        if matches!(name.as_str(), "cpu" | "memory") {
            let kind = if name == "cpu" { "cpu" } else { "mem" };
            let which = if key == "extra_limits" { "max" } else { "init" };
            section.problem(findings, &path, format!("belongs into {which}_{kind}"));
        } else if let Err(rule) = names::qualified_name(name) {
            section.problem(findings, &path, format!("a resource's name {rule}"));
        }
        match amount(value) {
            Some(amount) => {
                read.insert(name.clone(), amount);
            }
            None => section.problem(findings, &path, "must be an amount, such as 1 or 10Gi"),
        }
    }
    read
}

/// `accelerators`: a number of GPUs, or `{resource, count}`.
pub(super) fn accelerators(section: &mut Section<'_>, findings: &mut Findings) -> Option<Accelerators> {
    let (resource, count) = match section.take("accelerators")? {
        Value::Mapping(_) => {
            let mut section = section.section(findings, "accelerators")?;
            let resource = section.text(findings, "resource").unwrap_or_else(|| GPU.to_owned());
            if let Err(rule) = names::qualified_name(&resource) {
                section.problem(findings, "resource", rule);
            }
            if !section.has("count") {
                section.problem(findings, "count", "is missing: how many of them a pod has");
            }
            let count = section.count(findings, "count", 1);
            section.finish(findings);
            (resource, count)
        }
        Value::Null
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Timestamp(_)
        | Value::Text(_)
        | Value::List(_) => (GPU.to_owned(), section.count(findings, "accelerators", 0)),
    };
    let count = count.filter(|count| *count > 0)?;
    if count > 1024 {
        section.problem(findings, "accelerators", "must be at most 1024");
    }
    Some(Accelerators {
        resource,
        count: count.min(1024),
    })
}

/// `max_memory`: bytes, with `K`, `M`, `G` or `T` (powers of 1000, as `k`, `M`, `G` and `T` of Kubernetes) or `Ki` to
/// `Ti` (powers of 1024).
pub(super) fn memory_budget(section: &mut Section<'_>, findings: &mut Findings) -> Option<f64> {
    let value = section.take("max_memory")?;
    let amount = if let Value::Text(text) = value {
        // The one suffix of ours that is not one of Kubernetes.
        let text = text.trim();
        let text = text
            .strip_suffix('K')
            .map_or_else(|| text.to_owned(), |number| format!("{number}k"));
        Quantity::parse(&text)
    } else {
        amount(value)
    };
    let bytes = amount.map(|amount| amount.value()).filter(|bytes| *bytes >= 1.0);
    if bytes.is_none() {
        section.problem(
            findings,
            "max_memory",
            "must be an amount of memory, such as 64G or 64Gi (K, M, G and T, or Ki, Mi, Gi and Ti)",
        );
    }
    bytes
}

/// A budget below what one block requests would be an endpoint that never runs anything.
pub(super) fn check_budgets(section: &Section<'_>, findings: &mut Findings, config: &KubernetesProviderConfig) {
    if let Some(cores) = config.max_cores
        && cores < config.init_cpu.value()
    {
        section.problem(
            findings,
            "max_cores",
            format!(
                "is {cores}, less than one block requests (init_cpu: {})",
                config.init_cpu
            ),
        );
    }
    if let Some(memory) = config.max_memory
        && memory < config.init_mem.value()
    {
        section.problem(
            findings,
            "max_memory",
            format!(
                "is {memory} bytes, less than one block requests (init_mem: {})",
                config.init_mem
            ),
        );
    }
}
