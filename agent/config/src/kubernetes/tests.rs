use std::time::Duration;

use super::*;
use crate::{ConfigError, ProviderConfig, Read, UserEndpointConfig, user_endpoint_config};

fn read(options: &str) -> Result<Read<UserEndpointConfig>, ConfigError> {
    let options: String = options.lines().map(|line| format!("    {line}\n")).collect();
    user_endpoint_config(
        &format!("engine:\n  type: GlobusComputeEngine\n  provider:\n    type: KubernetesProvider\n{options}"),
        None,
    )
}

fn provider(options: &str) -> KubernetesProviderConfig {
    match read(options).unwrap().config.engine.provider {
        ProviderConfig::Kubernetes(config) => *config,
        other @ ProviderConfig::Local(_) => panic!("{other:?}"),
    }
}

/// The problems, as path and text.
fn problems(options: &str) -> Vec<(String, String)> {
    match read(options) {
        Err(ConfigError::Problems(problems)) => problems
            .into_iter()
            .map(|problem| {
                let path = problem.path.strip_prefix("engine.provider.").unwrap_or(&problem.path);
                (path.to_owned(), problem.what)
            })
            .collect(),
        other => panic!("problems were expected of {options:?}, not {other:?}"),
    }
}

#[test]
fn an_image_is_all_that_must_be_given() {
    let config = provider("image: python:3.12");
    assert_eq!(
        config,
        KubernetesProviderConfig {
            image: "python:3.12".to_owned(),
            ..KubernetesProviderConfig::default()
        }
    );
    assert_eq!(problems("namespace: x")[0].0, "image");
}

#[test]
fn every_option_of_upstream_is_read() {
    let config = provider(
        "image: busybox\n\
         namespace: dlhub\n\
         nodes_per_block: 2\n\
         init_blocks: 0\n\
         min_blocks: 1\n\
         max_blocks: 100\n\
         max_cpu: 2\n\
         max_mem: 1600Mi\n\
         init_cpu: 0.5\n\
         init_mem: 500Mi\n\
         extra_requests: {ephemeral-storage: 1Gi}\n\
         extra_limits: {nvidia.com/gpu: 1, ephemeral-storage: 2Gi}\n\
         parallelism: 0.5\n\
         worker_init: pip install globus-compute-endpoint>=2.0.0\n\
         pod_name: globus-compute-pod\n\
         user_id: \"1001\"\n\
         group_id: 1002\n\
         run_as_non_root: true\n\
         secret: registry\n\
         persistent_volumes: [[claim, /data], [other, /mnt/other]]\n\
         service_account_name: runner\n\
         annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: \"false\"}\n\
         incluster_config: yes\n",
    );
    assert_eq!(
        (
            config.init_cpu.text(),
            config.max_cpu.text(),
            config.max_mem.text(),
            config.init_mem.text()
        ),
        ("0.5", "2", "1600Mi", "500Mi")
    );
    assert_eq!(config.extra_limits["nvidia.com/gpu"].text(), "1");
    assert_eq!(
        (config.user_id, config.group_id, config.run_as_non_root),
        (Some(1001), Some(1002), Some(true))
    );
    assert_eq!(config.image_pull_secrets, ["registry"]);
    assert_eq!(config.persistent_volumes[1].mount_path, "/mnt/other");
    assert_eq!((config.init_blocks, config.min_blocks, config.max_blocks), (0, 1, 100));
    assert_eq!(config.incluster_config, Some(true));
}

#[test]
fn parts_of_a_pod_are_read_as_kubernetes_reads_them() {
    let config = provider(
        "image: busybox\n\
         labels: {team: a}\n\
         node_selector: {kubernetes.io/arch: amd64}\n\
         tolerations: [{key: gpu, operator: Exists, effect: NoSchedule, tolerationSeconds: 3}]\n\
         affinity:\n  podAntiAffinity:\n    preferredDuringSchedulingIgnoredDuringExecution:\n    - weight: 1\n      podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {a: b}}}\n\
         topology_spread_constraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]\n\
         env:\n  PLAIN: text\n  NUMBER: 3\n  SECRET: {secretKeyRef: {name: s, key: k}}\n\
         env_from: [{secretRef: {name: s}}]\n\
         volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]\n\
         volume_mounts: [{name: shm, mountPath: /dev/shm}]\n\
         init_containers: [{name: fetch, image: busybox, resources: {limits: {cpu: 1, memory: 10Mi}}}]\n\
         sidecars: [{name: proxy, image: envoy}]\n\
         image_pull_policy: Never\n\
         accelerators: 2\n",
    );
    assert_eq!(config.tolerations[0].toleration_seconds, Some(3));
    assert!(config.affinity.is_some());
    let secret = config.env.iter().find(|variable| variable.name == "SECRET").unwrap();
    let source = secret
        .value_from
        .as_ref()
        .and_then(|from| from.secret_key_ref.as_ref())
        .unwrap();
    assert_eq!((source.name.as_str(), source.key.as_str()), ("s", "k"));
    let number = config.env.iter().find(|variable| variable.name == "NUMBER").unwrap();
    assert_eq!(number.value.as_deref(), Some("3"));
    let limits = config.init_containers[0]
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref())
        .unwrap();
    assert_eq!(limits["cpu"].0, "1");
    assert_eq!(
        config.accelerators.as_ref().map(|a| a.resource.as_str()),
        Some("nvidia.com/gpu")
    );
    assert_eq!(
        provider("image: a\nenv: [{name: A, value: b}]").env[0].value.as_deref(),
        Some("b")
    );
}

#[test]
fn a_pod_with_accelerators_has_a_slot_for_each() {
    let engine = read("image: a\naccelerators: {resource: amd.com/gpu, count: 3}")
        .unwrap()
        .config
        .engine;
    assert_eq!(engine.max_workers_per_node, Some(3));
    assert_eq!(engine.available_accelerators, ["0", "1", "2"]);
}

#[test]
fn amounts_of_the_template_go_before_defaults_and_after_options() {
    let amounts = |resources: &str, options: &str| {
        let config = provider(&format!(
            "image: a\npod_template: {{spec: {{containers: [{{name: worker, resources: {resources}}}]}}}}\n{options}"
        ));
        [config.init_cpu, config.max_cpu, config.init_mem, config.max_mem].map(|amount| amount.text().to_owned())
    };
    for (resources, options, expected) in [
        (
            "{requests: {cpu: 3, memory: 2Gi}, limits: {cpu: 8, memory: 16Gi}}",
            "",
            ["3", "8", "2Gi", "16Gi"],
        ),
        ("{requests: {cpu: 3}}", "", ["3", "3", "250Mi", "500Mi"]),
        ("{requests: {cpu: 500m}}", "", ["500m", "2", "250Mi", "500Mi"]),
        (
            "{limits: {cpu: 500m, memory: 4Gi}}",
            "",
            ["500m", "500m", "250Mi", "4Gi"],
        ),
        (
            "{requests: {cpu: 3}, limits: {cpu: 8}}",
            "init_cpu: 4\nmax_cpu: 6",
            ["4", "6", "250Mi", "500Mi"],
        ),
    ] {
        assert_eq!(amounts(resources, options), expected, "{resources} {options}");
    }
    let template = "image: a\npod_template: {spec: {containers: [{name: worker, resources: {requests: {cpu: 3}}}]}}\n";
    assert_eq!(
        problems(&format!("{template}max_cpu: 2")),
        [(
            "pod_template".to_owned(),
            "requests 3 of cpu, more than max_cpu (2)".to_owned()
        )]
    );
    assert_eq!(
        problems(
            "image: a\npod_template: {spec: {containers: [{name: worker, resources: {limits: {cpu: 1}}}]}}\ninit_cpu: 2"
        ),
        [(
            "init_cpu".to_owned(),
            "is 2, more than max_cpu (1, the pod_template's)".to_owned()
        )]
    );
}

#[test]
fn a_pod_template_is_taken_from_here_or_from_a_file() {
    let inline = provider("image: a\npod_template: {metadata: {labels: {x: y}}, spec: {containers: [{name: worker}]}}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("pod.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {labels: {x: y}}\nspec: {containers: [{name: worker}]}\n",
    )
    .unwrap();
    let text = "engine:\n  provider: {type: KubernetesProvider, image: a, pod_template: pod.yaml}\n";
    let from_file = user_endpoint_config(text, Some(folder.path()))
        .unwrap()
        .config
        .engine
        .provider;
    assert_eq!(from_file, ProviderConfig::Kubernetes(Box::new(inline)));
    let missing = problems("image: a\npod_template: nowhere.yaml");
    assert!(
        missing[0].0.contains("nowhere.yaml") && missing[0].1.contains("can not be read"),
        "{missing:?}"
    );
}

#[test]
fn every_bad_option_is_refused_with_its_path() {
    let found = problems(
        "image: \"a b\"\n\
         namespace: Default\n\
         max_cpu: lots\n\
         init_mem: 2Gi\n\
         extra_requests: {cpu: 1, \"bad name\": 1, nvidia.com/gpu: many}\n\
         secret: NO\n\
         persistent_volumes: [[claim], [claim, data], {claim: a}]\n\
         annotations: {a: true}\n\
         labels: {waypost.dev/epoch: \"1\", ok: \"not ok!\"}\n\
         tolerations: [{key: a, operator: Exists, efect: NoSchedule}, {tolerationSeconds: soon}]\n\
         affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: 3}}}\n\
         env: {A: yes, B: {secretKeyReff: {name: a}}}\n\
         volume_mounts: [{name: a, mountPath: /waypost/link}]\n\
         init_containers: [{name: worker, image: a}, {name: ok}]\n\
         image_pull_policy: Sometimes\n\
         pod_template: {spec: {containers: [{name: worker, imagee: a}]}}\n\
         on_unschedulable: panic\n\
         min_idle_blocks: 11\n\
         max_memory: 100 sacks\n\
         max_cores: 0.5\n\
         node_selctor: {}\n",
    );
    for path in [
        "image",
        "namespace",
        "max_cpu",
        "init_mem",
        "extra_requests.cpu",
        "extra_requests.bad name",
        "extra_requests.nvidia.com/gpu",
        "secret",
        "persistent_volumes[0]",
        "persistent_volumes[1][1]",
        "persistent_volumes[2]",
        "annotations.a",
        "labels.waypost.dev/epoch",
        "labels.ok",
        "tolerations[0].efect",
        "tolerations[1].tolerationSeconds",
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        "env.A",
        "env.B.secretKeyReff",
        "volume_mounts",
        "init_containers[0].name",
        "init_containers[1].image",
        "image_pull_policy",
        "pod_template.spec.containers[0].imagee",
        "on_unschedulable",
        "min_idle_blocks",
        "max_memory",
        "max_cores",
        "node_selctor",
    ] {
        assert!(
            found.iter().any(|(found, _)| found == path),
            "{path} is missing in {found:#?}"
        );
    }
    assert_eq!(found.len(), 29, "{found:#?}");
}

#[test]
fn a_limit_below_the_default_request_lowers_it_and_a_request_above_a_limit_is_refused() {
    let config = provider("image: a\nmax_cpu: 500m\nmax_mem: 100Mi\ninit_blocks: 20");
    assert_eq!((config.init_cpu.text(), config.init_mem.text()), ("500m", "100Mi"));
    assert_eq!(config.init_blocks, 10);
    let found = problems("image: a\ninit_mem: 1Gi");
    assert_eq!(
        found,
        [(
            "init_mem".to_owned(),
            "is 1Gi, more than max_mem (500Mi, the default)".to_owned()
        )]
    );
}

#[test]
fn budgets_take_the_suffixes_of_old_and_those_of_kubernetes() {
    for (text, bytes) in [
        ("1500000K", 1.5e9),
        ("64G", 64e9),
        ("1T", 1e12),
        ("1Gi", 1_073_741_824.0),
        ("1000000000", 1e9),
    ] {
        assert_eq!(
            provider(&format!("image: a\nmax_memory: {text}")).max_memory,
            Some(bytes),
            "{text}"
        );
    }
}

#[test]
fn failed_pods_are_kept_by_count_and_age() {
    let kept = |text: &str| provider(&format!("image: a\nkeep_failed_pods: {text}")).keep_failed_pods;
    assert_eq!(kept("no").count, 0);
    assert_eq!(kept("yes").count, 10);
    assert_eq!(kept("3").count, 3);
    let both = kept("{count: 2, age: 60}");
    assert_eq!((both.count, both.age), (2, Duration::from_secs(60)));
}

#[test]
fn containers_of_an_engine_are_the_providers_business() {
    let text = "engine:\n  container_uri: a\n  provider: {type: KubernetesProvider, image: a}\n";
    let error = user_endpoint_config(text, None).unwrap_err().to_string();
    assert!(error.contains("manages containers internally"), "{error}");
}

#[test]
fn a_user_that_is_null_is_left_to_the_platform_and_one_left_out_is_not() {
    let read = |text: &str| provider(&format!("image: a\n{text}"));
    assert!(!read("").assigned_user);
    assert!(!read("user_id: 5").assigned_user);
    assert!(read("user_id: null").assigned_user);
    assert_eq!(read("security_profile: image").security_profile, SecurityProfile::Image);
}

/// The options are the fields, but for one that keeps Parsl's name, and one that `user_id` sets.
#[test]
fn every_option_is_documented_and_nothing_else_is() {
    let page = include_str!("../../../../docs/kubernetes.md");
    let (_, table) = page.split_once("| option | default | meaning |").unwrap();
    let documented: std::collections::BTreeSet<&str> = table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let shown = format!("{:#?}", KubernetesProviderConfig::default());
    let options: std::collections::BTreeSet<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
        .filter(|(name, _)| !name.starts_with(' ') && *name != "assigned_user")
        .map(|(name, _)| if name == "image_pull_secrets" { "secret" } else { name })
        .collect();
    assert_eq!(documented, options);
}
