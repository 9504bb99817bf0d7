"""The interchange's chart: its schema, its words, and what it makes of its values."""

from __future__ import annotations

import json

import pytest
import yaml
from harness import charts
from harness.charts import INTERCHANGE
from harness.rendered import Rendered, faults, refusal

NEEDED = {"database": {"secretName": "database"}, "broker": {"secretName": "broker"}}

EVERYTHING = {
    **NEEDED,
    "nameOverride": "other",
    "replicaCount": 3,
    "commonLabels": {"team": "a"},
    "commonAnnotations": {"note": "b"},
    "image": {"repository": "registry.example.org/i", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
    "imagePullSecrets": ["pull"],
    "broker": {**NEEDED["broker"], "publicUrl": "amqps://broker.example.org:5671/%2F"},
    "serverKey": {"secretName": "mine", "key": "k"},
    "options": {
        "taskQueueType": "quorum",
        "tokenLifetime": 3600,
        "taskLife": 15552000,
        "log": "info,interchange=debug",
    },
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "compute.example.org",
        "tlsSecretName": "tls",
        "annotations": {"c": "d"},
    },
    "serviceAccount": {"name": "account", "annotations": {"e": "f"}},
    "networkPolicy": {"from": [{"namespaceSelector": {}}], "egress": [{"ports": [{"port": 5432}]}]},
    "metrics": {
        "scrapeAnnotations": True,
        "podMonitor": {"enabled": True, "labels": {"release": "p"}},
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "podLabels": {"g": "h"},
    "podAnnotations": {"i": "j"},
    "nodeSelector": {"k": "l"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "extraInitContainers": [{"name": "wait", "image": "wait"}],
    "extraContainers": [{"name": "proxy", "image": "proxy"}],
    "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["broker"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["192.0.2.53"]},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "{{ .Release.Name }}-more",
                "namespace": "{{ .Release.Namespace }}",
                "labels": {"app.kubernetes.io/instance": "{{ .Release.Name }}"},
            },
        }
    ],
}

BY_SERVICE = {**NEEDED, "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}, "interval": "15s"}}}

VALUES = {"minimal": NEEDED, "everything": EVERYTHING, "by service": BY_SERVICE}


@pytest.fixture(scope="session")
def render(helm):
    """Renders the chart as the release `lab` in the namespace `here`. HelmError if it is refused."""

    def render(values=None, *arguments):
        return Rendered.by(helm, INTERCHANGE, values, *arguments)

    return render


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing(helm, name):
    said = helm.run("lint", "--strict", INTERCHANGE, "--values", "-", input=yaml.safe_dump(VALUES[name]))
    assert "0 chart(s) failed" in said and "[WARNING]" not in said, said


@pytest.mark.parametrize("name", VALUES)
def test_every_object_says_what_it_is_and_where_it_goes(render, name):
    for (kind, object_name, namespace), thing in render(VALUES[name]).items():
        assert namespace == "here", f"{kind} {object_name}"
        assert thing["metadata"]["labels"]["app.kubernetes.io/instance"] == "lab", f"{kind} {object_name}"


def test_the_readme_lists_every_value_as_its_comment_says():
    assert charts.written(INTERCHANGE) == charts.table(INTERCHANGE), (
        "write it anew: PYTHONPATH=tests python3 -m harness.charts helm/interchange"
    )


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
"""These may have more than the defaults say."""


def test_every_value_has_a_comment_and_the_schema_knows_it_and_no_other():
    listed = {row.path for row in charts.rows((INTERCHANGE / "values.yaml").read_text())}

    def same(values: dict, schema: dict, path: str) -> None:
        assert set(schema["properties"]) - {"global"} == set(values), path
        assert schema["additionalProperties"] is False, path
        for key, value in values.items():
            inner = schema["properties"][key]
            if isinstance(value, dict) and "properties" in inner:
                same(value, inner, f"{path}{key}.")
            elif key in PROBES:
                assert {f"{key}.{each}" for each in value} <= listed
            else:
                assert f"{path}{key}" in listed

    schema = json.loads((INTERCHANGE / "values.schema.json").read_text())
    same(yaml.safe_load((INTERCHANGE / "values.yaml").read_text()), schema, "")


REFUSED = {
    "an unknown key": ({"replicas": 2}, "at '': additional properties 'replicas' not allowed"),
    "an unknown key below": ({"database": {"url": "x"}}, "at '/database': additional properties 'url' not allowed"),
    "an unknown option": (
        {"options": {"tokenLife": 1}},
        "at '/options': additional properties 'tokenLife' not allowed",
    ),
    "text for a number": ({"options": {"tokenLifetime": "1h"}}, "at '/options/tokenLifetime': got string, want"),
    "a queue that is none": (
        {"options": {"taskQueueType": "stream"}},
        "at '/options/taskQueueType': value must be one",
    ),
    "a broker with a password": (
        {"broker": {"publicUrl": "amqp://user:password@host/"}},
        "at '/broker/publicUrl': 'amqp://user:password@host/' does not match pattern",
    ),
    "a URL that is none": (
        {"publicUrl": "compute.example.org"},
        "at '/publicUrl': 'compute.example.org' does not match",
    ),
}

REFUSED_TOGETHER = {
    "no database": (
        {"broker": NEEDED["broker"]},
        "/database/secretName",
        "the name of a Secret whose key `url` is postgres://user:password@host/name (`kubectl create secret generic NAME "
        "--from-literal=url=...`)",
    ),
    "no broker": (
        {"database": NEEDED["database"]},
        "/broker/secretName",
        "the name of a Secret whose keys `url` and `management-url` are amqp://user:password@host:5672/%2F and "
        "http://user:password@host:15672",
    ),
    "a tag and a digest": (
        {**NEEDED, "image": {"tag": "1", "digest": f"sha256:{'0' * 64}"}},
        "/image/digest",
        "empty, or image.tag must be: exactly one of them says which image",
    ),
    "an ingress to nowhere": (
        {**NEEDED, "ingress": {"enabled": True}},
        "/ingress/host",
        "the name that clients use, for ingress.enabled is true",
    ),
    "a host without an ingress": (
        {**NEEDED, "ingress": {"host": "a.example.org"}},
        "/ingress/host",
        "empty, or ingress.enabled must be true (publicUrl says by which address clients come without it)",
    ),
    "two monitors": (
        {**NEEDED, "metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "/metrics/serviceMonitor/enabled",
        "false, or metrics.podMonitor.enabled must be: a Prometheus that selects both would scrape everything twice",
    ),
}
"""What can't be together, where the schema finds it, and what it says."""

REFUSED_IN_WORDS = {
    "a pod that is killed while it drains": (
        {**NEEDED, "drainSeconds": 60},
        "terminationGracePeriodSeconds is 60, no more than drainSeconds (60)",
    ),
    "a name that no Service can have": ({**NEEDED, "fullnameOverride": "1st"}, '"1st" can not name a Service'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_schema_refuses(each_helm, name):
    values, words = REFUSED[name]
    said = refusal(each_helm, INTERCHANGE, {**NEEDED, **values})
    assert "values don't meet the specifications of the schema" in said
    assert words in said


@pytest.mark.parametrize("name", REFUSED_TOGETHER)
def test_the_schema_says_what_can_not_be_together(each_helm, name):
    values, place, words = REFUSED_TOGETHER[name]
    said = refusal(each_helm, INTERCHANGE, values)
    assert faults(said) == [f"- at '{place}': value must be '{words}'"]


@pytest.mark.parametrize("name", REFUSED_IN_WORDS)
def test_what_no_schema_can_refuse_is_refused_in_words(each_helm, name):
    values, words = REFUSED_IN_WORDS[name]
    assert words in refusal(each_helm, INTERCHANGE, values)


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_makes_the_same(helm, helm_3, name):
    # Without a key of the chart's own, which is another one each time.
    values = {**VALUES[name], "serverKey": {"secretName": "mine"}}
    one, other = (Rendered.by(each, INTERCHANGE, values) for each in (helm, helm_3))
    assert one == other


def variables(rendered):
    return {each["name"]: each for each in rendered.agent()["env"]}


def test_two_replicas_run_without_any_right_and_may_not_both_be_evicted(render):
    rendered = render(NEEDED)
    assert rendered.kinds() == {
        "Deployment",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "ServiceAccount",
    }
    assert rendered.one("Deployment")["spec"]["replicas"] == 2
    assert rendered.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    pod, container = rendered.pod()["spec"], rendered.agent()
    assert pod["automountServiceAccountToken"] is False
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert (
        pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    )
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "PodDisruptionBudget" not in render({**NEEDED, "replicaCount": 1}).kinds()


def test_addresses_with_passwords_come_from_the_secrets_that_are_named(render):
    values = {
        "database": {"secretName": "d", "key": "dsn"},
        "broker": {"secretName": "b", "urlKey": "u", "managementUrlKey": "m"},
    }
    found = variables(render(values))
    for name, secret, key in (("DATABASE", "d", "dsn"), ("BROKER_URL", "b", "u"), ("BROKER_MANAGEMENT_URL", "b", "m")):
        variable = found[f"WAYPOST_INTERCHANGE_{name}"]
        assert variable["valueFrom"]["secretKeyRef"] == {"name": secret, "key": key} and "value" not in variable


def test_the_server_key_is_made_once_and_kept_unless_one_is_given(render):
    made = render(NEEDED).one("Secret")
    assert made["metadata"]["name"] == "lab-key" and len(made["data"]["key"]) >= 64
    assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    given = render(EVERYTHING)
    assert "Secret" not in given.kinds()
    (volume,) = [each for each in given.pod()["spec"]["volumes"] if each["name"] == "key"]
    assert volume["secret"] == {"secretName": "mine", "defaultMode": 0o440}
    assert variables(given)["WAYPOST_INTERCHANGE_KEY_FILE"]["value"] == "/waypost/key/k"


def test_options_become_the_variables_that_the_interchange_reads(render):
    found = {
        name.removeprefix("WAYPOST_INTERCHANGE_"): each.get("value")
        for name, each in variables(render(EVERYTHING)).items()
    }
    assert (
        found["TASK_QUEUE_TYPE"] == "quorum" and found["TOKEN_LIFETIME"] == "3600" and found["TASK_LIFE"] == "15552000"
    )
    assert found["LOG"] == "info,interchange=debug" and found["PUBLIC_URL"] == "https://compute.example.org/"
    assert found["BROKER_PUBLIC_URL"] == "amqps://broker.example.org:5671/%2F"
    known = (charts.checkout.ROOT / "interchange" / "service" / "src" / "cli.rs").read_text()
    every = dict.fromkeys(
        json.loads((INTERCHANGE / "values.schema.json").read_text())["properties"]["options"]["properties"], 1
    )
    for name in variables(render({**NEEDED, "options": {**every, "taskQueueType": "classic", "log": "info"}})):
        assert f'"{name}"' in known, f"the interchange reads no {name}"


def test_the_ingress_leads_to_the_api_and_not_to_metrics(render):
    rule = render(EVERYTHING).one("Ingress")["spec"]
    assert rule["tls"] == [{"hosts": ["compute.example.org"], "secretName": "tls"}]
    (paths,) = [each["http"]["paths"] for each in rule["rules"]]
    assert [path["path"] for path in paths] == ["/v2", "/v3", "/.well-known", "/jwk.json"]
    for path in paths:
        assert path["backend"]["service"] == {"name": "lab-other", "port": {"name": "http"}}
    plain = render({**NEEDED, "ingress": {"enabled": True, "host": "a.example.org"}})
    assert variables(plain)["WAYPOST_INTERCHANGE_PUBLIC_URL"]["value"] == "http://a.example.org/"


def test_a_pod_that_ends_serves_on_until_nobody_is_led_to_it(render):
    container = render(NEEDED, "--kube-version", "1.33.0").agent()
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in render(NEEDED, "--kube-version", "1.29.0").agent()
    assert render(NEEDED).one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_everything_on_makes_everything(render):
    rendered = render(EVERYTHING)
    assert {"Ingress", "PodMonitor", "PrometheusRule", "ConfigMap"} <= rendered.kinds()
    assert rendered.one("PrometheusRule")["spec"]["groups"][0]["rules"]
    json.loads(rendered.one("ConfigMap", "lab-other-dashboard")["data"]["waypost-interchange.json"])
    assert rendered.one("ConfigMap", "lab-more")
    pod = rendered.pod()
    for key in ("hostAliases", "dnsPolicy", "dnsConfig"):
        assert pod["spec"][key] == rendered.one("Pod")["spec"][key] == EVERYTHING[key]
    assert pod["spec"]["initContainers"] == EVERYTHING["extraInitContainers"]
    assert pod["spec"]["containers"][0]["image"] == f"registry.example.org/i@sha256:{'0' * 64}"
    assert [each["name"] for each in pod["spec"]["containers"]] == ["interchange", "proxy"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == "5000" and pod["metadata"]["labels"]["g"] == "h"
    policy = rendered.one("NetworkPolicy")["spec"]
    assert policy["egress"] == [{"ports": [{"port": 5432}]}]
    namespaces, test = policy["ingress"][0]["from"]
    assert namespaces == {"namespaceSelector": {}}
    assert test["podSelector"]["matchLabels"].items() <= rendered.one("Pod")["metadata"]["labels"].items()
    (out,) = render(NEEDED).one("NetworkPolicy")["spec"]["egress"]
    assert "169.254.169.254/32" in out["to"][0]["ipBlock"]["except"]


def test_a_service_monitor_stands_in_for_a_pod_monitor(render):
    rendered = render(BY_SERVICE)
    assert "PodMonitor" not in rendered.kinds()
    monitor, service = rendered.one("ServiceMonitor"), rendered.one("Service")
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]


def test_a_test_goes_a_clients_way_through_the_service_and_is_nobodys_else(render):
    rendered = render(EVERYTHING)
    test = rendered.one("Pod")
    (container,) = test["spec"]["containers"]
    assert container["args"] == ["check", "--url=http://lab-other.here.svc:443"]
    assert container["image"] == rendered.agent()["image"]
    given = {each["name"]: each for each in container["env"]}
    for name in ("WAYPOST_INTERCHANGE_DATABASE", "WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL"):
        assert given[name] == variables(rendered)[name]
    assert given["SSL_CERT_FILE"]["value"] == "/ca/ca.crt" and test["spec"]["volumes"] == EVERYTHING["extraVolumes"]
    assert test["metadata"]["labels"]["team"] == "a" and test["metadata"]["annotations"]["note"] == "b"
    # Neither the Service nor a replica's policy or budget takes it for one of the replicas.
    selector = rendered.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= test["metadata"]["labels"].items()
    assert selector == rendered.one("Service")["spec"]["selector"]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert rendered.one(kind)["spec"][key] == {"matchLabels": selector}
    policy = test["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert policy == "before-hook-creation,hook-succeeded,hook-failed"
