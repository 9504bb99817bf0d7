"""What the endpoint's chart makes of its values."""

import json

import pytest
import yaml
from harness.charts import VALUES

EVERYTHING = yaml.safe_load((VALUES / "everything.yaml").read_text())


@pytest.fixture(scope="module")
def plain(render):
    return render()


@pytest.fixture(scope="module")
def everything(render):
    return render(EVERYTHING)


def test_objects_are_named_after_the_release(plain):
    assert set(plain) == {
        ("ServiceAccount", "lab", "here"),
        ("ServiceAccount", "lab-worker", "here"),
        ("Secret", "lab-state", "here"),
        ("ConfigMap", "lab-configuration", "here"),
        ("ConfigMap", "lab-anchor", "here"),
        ("Role", "lab", "here"),
        ("Role", "lab-workers", "here"),
        ("RoleBinding", "lab", "here"),
        ("RoleBinding", "lab-workers", "here"),
        ("Service", "lab", "here"),
        ("Deployment", "lab", "here"),
        ("NetworkPolicy", "lab", "here"),
        ("NetworkPolicy", "lab-workers", "here"),
        ("ConfigMap", "lab-validation", "here"),
        ("Job", "lab-validation", "here"),
        ("Pod", "lab-test", "here"),
    }


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"nameOverride": "endpoint"}, "lab-endpoint"),
        ({"nameOverride": "lab"}, "lab"),
        ({"fullnameOverride": "other", "nameOverride": "endpoint"}, "other"),
        ({"fullnameOverride": "x" * 60}, "x" * 44),
    ],
)
def test_names_can_be_changed_and_the_state_is_found_again(render, values, name):
    rendered = render(values)
    assert rendered.one("Deployment")["metadata"]["name"] == name
    assert rendered.one("Service")["metadata"]["name"] == rendered.environment()["WAYPOST_LINK_SERVICE"] == name
    assert rendered.one("Secret")["metadata"]["name"] == rendered.environment()["WAYPOST_STATE_SECRET"] == "lab-state"
    for kind, each, _ in rendered:
        assert each.startswith(name) or kind == "Secret", each
        assert len(each) <= 63, each


def test_two_releases_have_nothing_in_common(render):
    assert not set(render(release="one")) & set(render(release="two"))
    one, two = (render(release=name).one("Deployment")["spec"]["selector"]["matchLabels"] for name in ("one", "two"))
    assert one != two


def test_the_state_has_no_data_and_outlives_the_release(render, plain):
    state = plain.one("Secret")
    assert state["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not {"data", "stringData"} & set(state)
    assert "annotations" not in render({"state": {"keep": False}}).one("Secret")["metadata"]


def test_one_agent_follows_the_other(plain):
    deployment = plain.one("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert "PodDisruptionBudget" not in plain.kinds()
    agent = plain.agent()
    assert agent["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert plain.one("Service")["spec"]["publishNotReadyAddresses"] is True
    assert plain.environment()["WAYPOST_TERMINATION_GRACE"] == "60"
    assert plain.pod()["spec"]["terminationGracePeriodSeconds"] == 60


def test_credentials_are_mounted_never_in_the_environment_and_may_come_later(plain):
    assert plain.environment()["WAYPOST_CREDENTIALS_DIR"] == "/waypost/credentials"
    volumes = {volume["name"]: volume for volume in plain.pod()["spec"]["volumes"]}
    assert volumes["credentials"]["secret"]["secretName"] == "lab-credentials"
    assert volumes["credentials"]["secret"]["optional"] is True
    assert "envFrom" not in plain.agent()


def test_a_users_tokens_are_in_the_secret_of_the_fixed_name(render):
    for values in ({"credentials": {"type": "user"}}, {"useUserCredentials": True}):
        volumes = render(values).pod()["spec"]["volumes"]
        (secret,) = [volume["secret"] for volume in volumes if volume["name"] == "credentials"]
        assert secret["secretName"] == "compute-sdk-tokens"


def test_the_agent_may_do_what_it_must_and_no_more(plain):
    assert plain.one("Role", "lab")["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["lab-state"], "verbs": ["get", "patch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    workers = plain.one("Role", "lab-workers")["rules"]
    secrets = [rule for rule in workers if "secrets" in rule["resources"]]
    assert secrets == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]}]
    everything = json.dumps(workers)
    assert "*" not in everything and "pods/exec" not in everything
    assert "ClusterRole" not in plain.kinds()


def test_rights_and_anchors_are_in_each_namespace_of_workers(everything):
    for namespace in ("science-workers", "science-gpus"):
        for kind, name in [
            ("Role", "science-workers"),
            ("RoleBinding", "science-workers"),
            ("ConfigMap", "science-anchor"),
            ("ServiceAccount", "science-worker"),
            ("NetworkPolicy", "science-workers"),
        ]:
            assert (kind, name, namespace) in everything
        binding = everything["RoleBinding", "science-workers", namespace]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "science-agent", "namespace": "here"}]
    assert ("Role", "science-workers", "here") not in everything


def test_without_rbac_nothing_of_it_is_made(render):
    for values in ({"rbac": {"create": False}, "serviceAccount": {"create": False}}, {"rbacEnabled": False}):
        rendered = render(values)
        assert not rendered.kinds() & {"Role", "RoleBinding"}
        assert ("ServiceAccount", "lab", "here") not in rendered
        assert rendered.pod()["spec"]["serviceAccountName"] == "default"


def test_containers_of_ours_are_restricted(plain):
    pods = [plain.pod()["spec"], plain.one("Pod")["spec"], plain.one("Job")["spec"]["template"]["spec"]]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_a_platform_may_assign_the_agents_user(render):
    unset = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    context = render({"podSecurityContext": unset}).pod()["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("limit", "half"),
    [
        ("512Mi", 256 * 2**20),
        ("1Gi", 2**29),
        ("1.5Gi", 3 * 2**28),
        ("1G", 500_000_000),
        (1000000, 500000),
        (None, None),
    ],
)
def test_half_of_the_memory_may_be_held(render, limit, half):
    rendered = render({"resources": {"limits": {"memory": limit}}})
    assert rendered.configuration().get("max_held_bytes") == half


def test_a_configuration_says_what_the_values_say(everything):
    assert everything.configuration() == {
        "display_name": 'Science: "CPUs" & #GPUs',
        "max_held_bytes": 256 * 2**20,
        "public": True,
        "allowed_functions": ["00000000-1111-2222-3333-555555555555"],
        "max_user_endpoints": 7,
    }
    assert yaml.safe_load(everything.file("user_environment.yaml")) == {"OMP_NUM_THREADS": 2}
    assert json.loads(everything.file("user_config_schema.json")) == {"type": "object", "additionalProperties": False}


def test_an_engine_says_what_the_values_say(render):
    # What would end the template's own signs is refused below.
    values = {**EVERYTHING, "worker": {**EVERYTHING["worker"], "init": "echo '{{ x }} {% if %} {# #}'\n"}}
    worker = values["worker"]
    assert render(values).engine() == {
        "type": "GlobusComputeEngine",
        "label": "science",
        "max_workers_per_node": 2,
        "job_status_kwargs": {"max_idletime": 30},
        "provider": {
            "type": "KubernetesProvider",
            "image": "python:3.12",
            "image_pull_policy": "Always",
            "namespace": "science-workers",
            "secret": ["workers", "registry"],
            "init_blocks": 1,
            "min_blocks": 1,
            "max_blocks": 5,
            "init_cpu": "500m",
            "max_cpu": 1,
            "init_mem": "1Gi",
            "max_mem": "2Gi",
            "extra_requests": {"ephemeral-storage": "1Gi"},
            "extra_limits": {"ephemeral-storage": "2Gi"},
            "worker_init": "echo '{{ x }} {% if %} {# #}'\n",
            "security_profile": "baseline",
            "user_id": 2000,
            "group_id": 3000,
            "service_account_name": "science-worker",
            "env": [*worker["env"], {"name": "GC_TASK_TIMEOUT", "value": "600"}],
            "env_from": worker["envFrom"],
            "labels": worker["labels"],
            "annotations": worker["annotations"],
            "node_selector": worker["nodeSelector"],
            "tolerations": worker["tolerations"],
            "affinity": worker["affinity"],
            "priority_class_name": "low",
            "runtime_class_name": "gvisor",
            "volumes": worker["volumes"],
            "volume_mounts": worker["volumeMounts"],
            "accelerators": 2,
            "keep_failed_pods": 3,
        },
    }


def test_a_direct_endpoint_has_its_engine_and_no_template(render):
    rendered = render({"endpoint": {"kind": "direct"}, "worker": {"image": "python:3.12"}})
    configuration = rendered.configuration()
    assert configuration["engine"]["provider"]["image"] == "python:3.12"
    assert configuration["display_name"] == "lab"
    assert set(rendered.one("ConfigMap", "lab-configuration")["data"]) == {"config.yaml"}


def test_an_own_template_is_taken_as_it_is(render):
    rendered = render({"endpoint": {"userConfigTemplate": "engine: {{ engine }}\n"}})
    assert rendered.file("user_config_template.yaml.j2") == "engine: {{ engine }}\n"
    assert "user_config_schema.json" not in rendered.one("ConfigMap", "lab-configuration")["data"]


def test_who_workers_run_as_is_the_profiles_business(render):
    def said(**worker):
        provider = render({"worker": worker}).engine()["provider"]
        keys = ("security_profile", "user_id", "group_id")
        return {key: provider[key] for key in keys if key in provider}

    assert said() == {"security_profile": "restricted", "user_id": 1000, "group_id": 1000}
    assert said(userId=None) == {"security_profile": "restricted", "user_id": None}
    assert said(securityProfile="image") == {"security_profile": "image"}


def test_another_configuration_replaces_the_agent(render, plain):
    checksum = lambda rendered: rendered.pod()["metadata"]["annotations"]["checksum/configuration"]  # noqa: E731
    assert checksum(plain) == checksum(render({"podLabels": {"a": "b"}}))
    assert checksum(plain) != checksum(render({"worker": {"maxBlocks": 7}}))


def test_everything_that_can_be_set_is_set_in_the_agents_pod(everything):
    pod, agent = everything.pod(), everything.agent()
    assert agent["image"].endswith(f"/waypost-endpoint@{EVERYTHING['image']['digest']}")
    assert agent["args"] == ["start", "science", f"--endpoint-uuid={EVERYTHING['endpoint']['uuid']}", "--debug"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert {"a": "b", "team": "physics"}.items() <= pod["metadata"]["labels"].items()
    assert {"c": "d", "prometheus.io/port": "9464"}.items() <= pod["metadata"]["annotations"].items()
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "terminationGracePeriodSeconds"):
        assert pod["spec"][key] == EVERYTHING[key]
    environment = everything.environment()
    assert environment["WAYPOST_SERVICE_URL"] == "https://interchange.example.org/gc"
    assert environment["WAYPOST_AUTH_URL"] == "https://auth.example.org"
    assert environment["WAYPOST_CA_BUNDLE"] == "/waypost/authorities/bundle.pem"
    assert environment["WAYPOST_LOG"] == "endpoint=debug"
    assert environment["WAYPOST_WORKER_IMAGE"] == "registry.example.org/waypost-worker:1"
    assert environment["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert agent["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert EVERYTHING["extraVolumeMounts"][0] in agent["volumeMounts"]
    assert EVERYTHING["extraVolumes"][0] in pod["spec"]["volumes"]
    assert pod["spec"]["containers"][1:] == EVERYTHING["extraContainers"]
    assert pod["spec"]["initContainers"] == EVERYTHING["extraInitContainers"]
    for key in ("hostAliases", "dnsPolicy", "dnsConfig"):
        assert pod["spec"][key] == everything.one("Pod")["spec"][key] == EVERYTHING[key]
    assert everything.one("ConfigMap", "lab-more")["data"] == {"endpoint": "science"}
    (files,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "files"]
    assert files["persistentVolumeClaim"] == {"claimName": "science-journal"}
    claim = everything.one("PersistentVolumeClaim")["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "2Gi")


def test_everything_has_the_labels_and_annotations_that_everything_is_to_have(everything):
    labels, annotations = EVERYTHING["commonLabels"].items(), EVERYTHING["commonAnnotations"].items()
    for (kind, name, _), thing in everything.items():
        if name == "lab-more":
            # It is the user's own.
            continue
        assert labels <= thing["metadata"]["labels"].items(), f"{kind} {name}"
        assert annotations <= thing["metadata"]["annotations"].items(), f"{kind} {name}"
    for kind in ("Deployment", "Job"):
        assert labels <= everything.one(kind)["spec"]["template"]["metadata"]["labels"].items()


def test_openshift_chooses_users_and_groups(render):
    rendered = render(yaml.safe_load((VALUES / "openshift.yaml").read_text()))
    for context in (
        rendered.pod()["spec"],
        rendered.one("Pod")["spec"],
        rendered.one("Job")["spec"]["template"]["spec"],
    ):
        assert context["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    provider = rendered.engine()["provider"]
    assert (provider["security_profile"], provider["user_id"]) == ("restricted", None)
    assert "group_id" not in provider


def test_an_anchor_a_role_and_an_account_are_in_each_namespace_of_workers(everything):
    for kind, name in (
        ("ConfigMap", "science-anchor"),
        ("Role", "science-workers"),
        ("RoleBinding", "science-workers"),
        ("ServiceAccount", "science-worker"),
        ("NetworkPolicy", "science-workers"),
    ):
        places = {namespace for each, called, namespace in everything if (each, called) == (kind, name)}
        assert places == {"science-workers", "science-gpus"}, kind


def test_what_a_prometheus_of_service_monitors_takes_is_made_on_request(render, plain):
    assert "ServiceMonitor" not in plain.kinds()
    rendered = render(yaml.safe_load((VALUES / "service-monitor.yaml").read_text()))
    assert "PodMonitor" not in rendered.kinds()
    monitor, service = rendered.one("ServiceMonitor"), rendered.one("Service", "lab-metrics")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]
    selector = monitor["spec"]["selector"]["matchLabels"].items()
    assert selector <= service["metadata"]["labels"].items()
    # The Service that workers dial is not scraped.
    assert not selector <= rendered.one("Service", "lab")["metadata"]["labels"].items()
    assert service["spec"]["selector"] == rendered.one("Service", "lab")["spec"]["selector"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["ports"] == [{"name": "http", "port": 9464, "targetPort": "http"}]


def test_what_prometheus_and_grafana_take_is_made_on_request(plain, everything):
    assert not plain.kinds() & {"PodMonitor", "PrometheusRule"}
    monitor = everything.one("PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"] == everything.one("Deployment")["spec"]["selector"]
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s"}]


def test_workers_reach_the_link_dns_and_neither_metadata_nor_the_api_server(render):
    policy = render({"networkPolicy": {"apiServer": {"addresses": ["192.0.2.1/32", "2001:db8::1/128"]}}})
    workers = policy.one("NetworkPolicy", "lab-workers")["spec"]
    assert (workers["policyTypes"], workers["ingress"]) == (["Ingress", "Egress"], [])
    labels = {"app.kubernetes.io/name": "waypost-worker", "app.kubernetes.io/instance": "lab"}
    assert workers["podSelector"] == {"matchLabels": labels}
    link, dns, rest = workers["egress"]
    assert link["ports"] == [{"port": 5800}]
    assert link["to"][0]["podSelector"] == policy.one("Deployment")["spec"]["selector"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    four, six, pods = rest["to"]
    assert four["ipBlock"]["except"] == ["169.254.169.254/32", "169.254.170.2/32", "192.0.2.1/32"]
    assert six["ipBlock"]["except"] == ["fd00:ec2::254/128", "2001:db8::1/128"]
    assert pods == {"namespaceSelector": {}}
    agent = policy.one("NetworkPolicy", "lab")["spec"]
    assert agent["podSelector"] == policy.one("Deployment")["spec"]["selector"]
    link, metrics = agent["ingress"]
    assert link["ports"] == [{"port": "link"}]
    assert link["from"][0]["podSelector"] == {"matchLabels": labels}
    (scrapers,) = metrics["from"]
    assert scrapers["podSelector"]["matchExpressions"][0]["operator"] == "NotIn"
    assert render({"networkPolicy": {"enabled": False}}).kinds() & {"NetworkPolicy"} == set()


def test_egress_of_workers_can_be_narrowed_and_the_agent_stays_within_reach(everything):
    egress = everything["NetworkPolicy", "science-workers", "science-workers"]["spec"]["egress"]
    assert egress[0]["to"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "here"}}
    assert egress[2:] == EVERYTHING["networkPolicy"]["workers"]["egress"]


def test_pods_of_hooks_are_nobodys_else(plain):
    selector = plain.one("Deployment")["spec"]["selector"]["matchLabels"].items()
    for labels in (
        plain.one("Pod")["metadata"]["labels"],
        plain.one("Job")["spec"]["template"]["metadata"]["labels"],
    ):
        assert not selector <= labels.items()
    for hook in (plain.one("Pod"), plain.one("Job"), plain.one("ConfigMap", "lab-validation")):
        policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded,hook-failed"


def test_the_configuration_that_is_validated_is_the_one_that_is_installed(plain):
    assert plain.one("ConfigMap", "lab-validation")["data"] == plain.one("ConfigMap", "lab-configuration")["data"]


def test_a_test_sees_the_endpoints_id_and_nothing_else_of_the_state(plain):
    (state,) = [volume["secret"] for volume in plain.one("Pod")["spec"]["volumes"] if volume["name"] == "state"]
    assert state == {"secretName": "lab-state", "items": [{"key": "endpoint.json", "path": "endpoint.json"}]}
