use endpoint_config::{Accelerators, PersistentVolume, Quantity as Amount};
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::tests::{options, settings};

fn made(settings: &KubernetesSettings) -> Value {
    let particulars = Particulars {
        name: "lab-02000000-7-3",
        block: BlockId { epoch: 7, number: 3 },
        attempt: "attempt",
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: "anchor".to_owned(),
            uid: "uid".to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        },
        release: Some("lab"),
        worker_image: "registry.example/worker:1",
    };
    serde_json::to_value(pod(settings, &particulars)).expect("a pod is JSON")
}

/// The image that brings the worker's program is the workers' own: there is nothing to wait for.
#[test]
fn an_image_that_has_the_worker_is_not_brought_it() {
    let mut settings = settings();
    settings.config.image = "registry.example/worker:1".to_owned();
    let pod = made(&settings);
    let spec = &pod["spec"];
    assert_eq!(spec["initContainers"].as_array().map_or(0, Vec::len), 0, "{spec}");
    let worker = &spec["containers"][0];
    let script = worker["args"][0].as_str().unwrap_or_default();
    assert!(script.contains("exec /usr/local/bin/worker --connect"), "{script}");
    for list in [&spec["volumes"], &worker["volumeMounts"]] {
        let names: Vec<_> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| &item["name"])
            .collect();
        assert!(
            !names.is_empty() && !names.contains(&&json!("waypost-bin")),
            "{names:?}"
        );
    }
}

fn with_template(template: Value) -> KubernetesSettings {
    let mut settings = settings();
    settings.config.pod_template = options(&json!({"pod_template": template})).pod_template;
    settings
}

#[test]
fn a_pod_of_the_defaults_is_restricted_and_reads_nothing_but_its_own_secret() {
    let pod = made(&settings());
    assert_eq!(pod["metadata"]["name"], "lab-02000000-7-3");
    assert_eq!(pod["metadata"]["namespace"], "work");
    assert_eq!(pod["metadata"]["labels"]["waypost.dev/block"], "3");
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/instance"], "lab");
    assert_eq!(
        pod["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "anchor", "uid": "uid",
                "controller": true, "blockOwnerDeletion": false}])
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(spec["terminationGracePeriodSeconds"], 60);
    let containers = ["containers", "initContainers"].map(|key| spec[key].as_array().cloned().unwrap_or_default());
    assert_eq!(containers.each_ref().map(Vec::len), [1, 1]);
    for container in containers.iter().flatten() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{container}");
        assert_eq!(security["runAsNonRoot"], true, "{container}");
        assert_eq!(security["runAsUser"], 1000, "{container}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{container}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
    }
    let worker = &spec["containers"][0];
    assert_eq!(worker["image"], "registry.example/python:3.12");
    assert_eq!(spec["initContainers"][0]["image"], "registry.example/worker:1");
    let variables: BTreeMap<&str, &str> = worker["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect();
    assert_eq!(variables["HOME"], "/waypost/home");
    assert_eq!(variables["PYTHONUSERBASE"], "/waypost/home/.local");
    assert_eq!(variables["GC_TASK_TIMEOUT"], "60");
    let secrets: Vec<&Value> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| &volume["secret"])
        .collect();
    let secrets: Vec<&Value> = secrets.into_iter().filter(|secret| !secret.is_null()).collect();
    assert_eq!(
        secrets,
        [&json!({"secretName": "lab-02000000-7-3", "defaultMode": 0o440})]
    );
}

#[test]
fn a_template_gives_what_the_options_leave_open_and_takes_back_nothing_that_the_worker_needs() {
    let mut settings = with_template(json!({
        "metadata": {"labels": {"team": "a", "both": "template"}, "annotations": {"sidecar.example/inject": "true"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": true,
            "hostNetwork": true,
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "nodeSelector": {"zone": "a", "disk": "slow"},
            "imagePullSecrets": [{"name": "template"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "initContainers": [{"name": "data", "image": "fetch"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [
                {"name": "proxy", "image": "proxy"},
                {"name": "worker", "image": "ignored",
                 "env": [{"name": "FROM_TEMPLATE", "value": "1"}, {"name": "TMPDIR", "value": "/template"}],
                 "resources": {"limits": {"example.com/fpga": "1"}},
                 "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                 "securityContext": {"runAsUser": 2000, "readOnlyRootFilesystem": false,
                                     "capabilities": {"add": ["IPC_LOCK"]}}}
            ]
        }
    }));
    settings.config.labels.insert("both".to_owned(), "option".to_owned());
    settings
        .config
        .node_selector
        .insert("disk".to_owned(), "fast".to_owned());
    settings.config.image_pull_secrets = vec!["option".to_owned()];
    let listed = options(&json!({
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "topology_spread_constraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "init_containers": [{"name": "warm", "image": "w"}],
        "sidecars": [{"name": "logs", "image": "l"}],
    }));
    settings.config.tolerations = listed.tolerations;
    settings.config.topology_spread_constraints = listed.topology_spread_constraints;
    settings.config.init_containers = listed.init_containers;
    settings.config.sidecars = listed.sidecars;
    let pod = made(&settings);
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    assert_eq!(
        (&metadata["labels"]["team"], &metadata["labels"]["both"]),
        (&json!("a"), &json!("option"))
    );
    assert_eq!(metadata["annotations"]["sidecar.example/inject"], "true");
    assert_eq!(spec["hostNetwork"], true);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["nodeSelector"], json!({"zone": "a", "disk": "fast"}));
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(spec["topologySpreadConstraints"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        spec["imagePullSecrets"],
        json!([{"name": "template"}, {"name": "option"}])
    );
    let names = |key: &str| -> Vec<String> {
        let list = spec[key].as_array().into_iter().flatten();
        list.filter_map(|item| Some(item["name"].as_str()?.to_owned()))
            .collect()
    };
    assert_eq!(names("initContainers"), ["waypost-install", "data", "warm"]);
    assert_eq!(names("containers"), ["worker", "proxy", "logs"]);
    assert!(names("volumes").contains(&"scratch".to_owned()));
    let worker = &spec["containers"][0];
    assert_eq!(worker["image"], "registry.example/python:3.12");
    assert_eq!(worker["resources"]["limits"]["example.com/fpga"], "1");
    assert_eq!(worker["resources"]["limits"]["memory"], "500Mi");
    let security = &worker["securityContext"];
    assert_eq!(security["runAsUser"], 2000, "the template outweighs a default");
    assert_eq!(security["readOnlyRootFilesystem"], false);
    assert_eq!(security["capabilities"], json!({"add": ["IPC_LOCK"], "drop": ["ALL"]}));
    let mounts: Vec<&Value> = worker["volumeMounts"].as_array().into_iter().flatten().collect();
    let at_tmp: Vec<&Value> = mounts
        .into_iter()
        .filter(|mount| mount["mountPath"] == "/tmp")
        .map(|mount| &mount["name"])
        .collect();
    assert_eq!(at_tmp, ["scratch"], "what the template mounts at /tmp stays there");
    let variables: Vec<&Value> = worker["env"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|variable| &variable["name"])
        .collect();
    assert!(variables.contains(&&json!("FROM_TEMPLATE")));
}

#[test]
fn an_option_outweighs_the_template() {
    let mut settings = with_template(json!({
        "spec": {"priorityClassName": "low", "serviceAccountName": "a",
                 "containers": [{"name": "worker", "securityContext": {"runAsUser": 2000}}]}
    }));
    settings.config.user_id = Some(0);
    settings.config.run_as_non_root = Some(false);
    settings.config.priority_class_name = Some("high".to_owned());
    let pod = made(&settings);
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(pod["spec"]["serviceAccountName"], "a");
    let security = &pod["spec"]["containers"][0]["securityContext"];
    assert_eq!(
        (&security["runAsUser"], &security["runAsNonRoot"]),
        (&json!(0), &json!(false))
    );
}

#[test]
fn a_profile_says_how_much_the_worker_may_do_and_the_platform_may_choose_its_user() {
    let security = |change: fn(&mut KubernetesSettings)| {
        let mut settings = settings();
        change(&mut settings);
        let spec = made(&settings)["spec"].clone();
        let of = |key: &str| spec[key][0]["securityContext"].clone();
        (of("containers"), of("initContainers"), spec["securityContext"].clone())
    };
    let (worker, install, _) = security(|settings| {
        settings.config.security_profile = SecurityProfile::Baseline;
    });
    assert_eq!(
        worker,
        json!({"runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(install["readOnlyRootFilesystem"], true, "{install}");
    let (worker, _, _) = security(|settings| settings.config.security_profile = SecurityProfile::Image);
    assert_eq!(worker, json!({"seccompProfile": {"type": "RuntimeDefault"}}));
    let (worker, install, pod) = security(|settings| settings.config.assigned_user = true);
    for security in [&worker, &install] {
        assert_eq!(security["runAsNonRoot"], true, "{security}");
        assert_eq!(
            (&security["runAsUser"], &security["runAsGroup"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(pod, json!({"seccompProfile": {"type": "RuntimeDefault"}}));
}

#[test]
fn claims_accelerators_and_extended_resources_are_in_the_pod() {
    let mut settings = settings();
    settings.config.persistent_volumes = vec![PersistentVolume {
        claim: "data".to_owned(),
        mount_path: "/data".to_owned(),
    }];
    settings.config.accelerators = Some(Accelerators {
        resource: "nvidia.com/gpu".to_owned(),
        count: 2,
    });
    let storage = Amount::parse("10Gi").expect("an amount");
    settings
        .config
        .extra_requests
        .insert("ephemeral-storage".to_owned(), storage);
    let pod = made(&settings);
    let worker = &pod["spec"]["containers"][0];
    let resources = &worker["resources"];
    assert_eq!(resources["requests"]["nvidia.com/gpu"], "2");
    assert_eq!(resources["limits"]["nvidia.com/gpu"], "2");
    assert_eq!(resources["requests"]["ephemeral-storage"], "10Gi");
    let find = |list: &Value, key: &str, value: &str| -> Value {
        let found = list.as_array().into_iter().flatten().find(|item| item[key] == value);
        found.cloned().unwrap_or_default()
    };
    let mount = find(&worker["volumeMounts"], "mountPath", "/data");
    let volume = find(
        &pod["spec"]["volumes"],
        "name",
        mount["name"].as_str().unwrap_or_default(),
    );
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "data");
}

#[test]
fn a_template_that_takes_what_is_ours_is_refused_with_its_path() {
    let settings = with_template(json!({
        "metadata": {"labels": {"waypost.dev/block": "1"}},
        "spec": {
            "restartPolicy": "Always",
            "volumes": [{"name": "waypost-link", "emptyDir": {}}],
            "containers": [{"name": "worker", "command": ["sh"]}, {"name": "side"}]
        }
    }));
    let problems = template_problems(settings.config.pod_template.as_deref().expect("it was given"));
    for path in [
        "pod_template.metadata.labels.waypost.dev/block:",
        "pod_template.spec.volumes[0].name:",
        "pod_template.spec.containers[0]:",
        "pod_template.spec.containers[1].image:",
        "pod_template.spec.restartPolicy:",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(path)),
            "{path} in {problems:?}"
        );
    }
    assert_eq!(problems.len(), 5);
}
