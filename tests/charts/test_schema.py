import json

import pytest
import yaml
from harness.charts import ENDPOINT
from harness.rendered import Rendered, faults, refusal

SCHEMA = json.loads((ENDPOINT / "values.schema.json").read_text())

REFUSED = {
    "an unknown key": ({"workerimage": "a"}, "at '': additional properties 'workerimage' not allowed"),
    "an unknown key below": (
        {"worker": {"limits": {}}},
        "at '/worker': additional properties 'limits' not allowed",
    ),
    "two agents": ({"replicaCount": 2}, "at '/replicaCount': value must be one of 0, 1"),
    "a profile that is none": (
        {"worker": {"securityProfile": "none"}},
        "at '/worker/securityProfile': value must be one of 'restricted', 'baseline', 'image'",
    ),
    "a kind of credentials that is none": (
        {"credentials": {"type": "both"}},
        "at '/credentials/type': value must be one of 'client', 'user'",
    ),
    "an id that is none": ({"endpoint": {"uuid": "mine"}}, "at '/endpoint/uuid': 'mine' does not match pattern"),
    "an old id that is none": ({"endpointUUID": "mine"}, "at '/endpointUUID': 'mine' does not match pattern"),
    "an amount that is none": ({"maxMem": "1.6GB"}, "at '/maxMem': '1.6GB' does not match pattern"),
    "less than one worker": ({"worker": {"maxWorkersPerPod": 0}}, "minimum: got 0, want 1"),
    "a digest that is none": ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
    "text for a number": ({"maxBlocks": "many"}, "at '/maxBlocks': got string, want"),
    "a URL that is none": (
        {"webService": {"url": "compute.api.globus.org"}},
        "at '/webService/url': 'compute.api.globus.org' does not match pattern",
    ),
}

EXACTLY_ONE = "please specify EXACTLY one of `useClientCredentials` and `useUserCredentials`"

REFUSED_TOGETHER = {
    "both kinds of old credentials": (
        {"useClientCredentials": True, "useUserCredentials": True, "secrets": "mine"},
        "/useUserCredentials",
        f"false: {EXACTLY_ONE}, or in their place `credentials: {{type: client, secretName: ...}}` or "
        "`credentials: {type: user}`",
    ),
    "neither kind of old credentials": (
        {"useClientCredentials": False, "useUserCredentials": False},
        "/useClientCredentials",
        f"true, or `useUserCredentials` must be: {EXACTLY_ONE}",
    ),
    "an old kind of credentials and another new one": (
        {"useClientCredentials": True, "secrets": "mine", "credentials": {"type": "user"}},
        "/credentials/type",
        "client, for `useClientCredentials` is true: exactly one kind of credentials",
    ),
    "a client without a Secret": (
        {"useClientCredentials": True},
        "/credentials/secretName",
        "the name of a Secret, or `secrets` must be, for `useClientCredentials` is true. It has GLOBUS_COMPUTE_CLIENT_ID "
        "and GLOBUS_COMPUTE_CLIENT_SECRET (or FUNCX_SDK_CLIENT_ID and FUNCX_SDK_CLIENT_SECRET)",
    ),
    "a tag and a digest": (
        {"image": {"tag": "1", "digest": f"sha256:{'0' * 64}"}},
        "/image/digest",
        "empty, or image.tag must be: exactly one of them says which image",
    ),
    "an engine beside the values": (
        {"endpoint": {"config": {"engine": {}}}},
        "/endpoint/config/engine",
        "removed: the engine is made of `worker` (with worker.engine and worker.provider for more options), or stands in "
        "an own endpoint.userConfigTemplate",
    ),
    "a template for an endpoint that has none": (
        {"endpoint": {"kind": "direct", "userConfigTemplate": "engine: {}"}},
        "/endpoint/userConfigTemplate",
        "empty, or endpoint.kind must be `template`: an endpoint of the kind `direct` has none",
    ),
    "a template's schema for an endpoint that has none": (
        {"endpoint": {"kind": "direct", "userConfigSchema": {"type": "object"}}},
        "/endpoint/userConfigSchema",
        "empty, or endpoint.kind must be `template`: an endpoint of the kind `direct` has no template",
    ),
    "a claim without persistence": (
        {"persistence": {"existingClaim": "mine"}},
        "/persistence/existingClaim",
        "empty, or persistence.enabled must be true",
    ),
    "two monitors": (
        {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "/metrics/serviceMonitor/enabled",
        "false, or metrics.podMonitor.enabled must be: a Prometheus that selects both would scrape everything twice",
    ),
}
"""What can't be together, where the schema finds it, and what it says."""

TOGETHER = {
    "an old client": {"useClientCredentials": True, "useUserCredentials": False, "secrets": "mine"},
    "an old client whose Secret has its new name": {
        "useClientCredentials": True,
        "credentials": {"secretName": "mine"},
    },
    "an old user": {"useClientCredentials": False, "useUserCredentials": True},
    "an old user with a client's Secret": {"useUserCredentials": True, "secrets": "mine"},
    "a new user, and no old client": {"useClientCredentials": False, "credentials": {"type": "user"}},
    "a digest": {"image": {"digest": f"sha256:{'0' * 64}"}},
    "a direct endpoint": {"endpoint": {"kind": "direct", "config": {"public": True}}},
    "a claim": {"persistence": {"enabled": True, "existingClaim": "mine"}},
    "a monitor of services": {"metrics": {"serviceMonitor": {"enabled": True}}},
}

REFUSED_IN_WORDS = {
    "the old default of the service": (
        {"funcXServiceAddress": "curl  https://compute.api.globus.org"},
        'funcXServiceAddress: "curl  https://compute.api.globus.org" is not a URL. Write `webService: {url: ',
    ),
    "the image of the Python endpoint": (
        {"image": {"repository": "funcx/kube-endpoint", "tag": "main-3.11"}},
        "image.repository: funcx/kube-endpoint is the image of the Python endpoint, which this chart does not run. "
        "Remove image.repository and image.tag",
    ),
    "more to keep than to have": (
        {"minBlocks": 5, "maxBlocks": 4},
        "worker.minBlocks is 5, more than worker.maxBlocks (4)",
    ),
    "the end of what a template takes as it is": (
        {"worker": {"init": "echo {%- endraw %}"}},
        "worker: a value has `{% endraw %}` in it",
    ),
    "a name that no Service can have": (
        {"fullnameOverride": "1st"},
        '"1st" can not name a Service: it must begin with a letter',
    ),
    "an amount of memory in words": (
        {"resources": {"limits": {"memory": "500m"}}},
        'resources.limits.memory: "500m" is not an amount of memory such as 512Mi or 1Gi',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_schema_refuses(each_helm, name):
    values, words = REFUSED[name]
    said = refusal(each_helm, ENDPOINT, values)
    assert "values don't meet the specifications of the schema" in said
    assert words in said


@pytest.mark.parametrize("name", REFUSED_TOGETHER)
def test_the_schema_says_what_can_not_be_together(each_helm, name):
    values, place, words = REFUSED_TOGETHER[name]
    said = refusal(each_helm, ENDPOINT, values)
    assert faults(said) == [f"- at '{place}': value must be '{words}'"]


@pytest.mark.parametrize("name", TOGETHER)
def test_the_schema_takes_what_can_be_together(each_helm, name):
    assert Rendered.by(each_helm, ENDPOINT, TOGETHER[name]).one("Deployment")


@pytest.mark.parametrize("name", REFUSED_IN_WORDS)
def test_what_no_schema_can_refuse_is_refused_in_words(each_helm, name):
    values, words = REFUSED_IN_WORDS[name]
    assert words in refusal(each_helm, ENDPOINT, values)


def test_the_schema_knows_every_value_and_no_other():
    def same(values: dict, schema: dict, path: str) -> None:
        known = set(schema["properties"])
        assert known - {"global"} == set(values), path
        for key, value in values.items():
            inner = schema["properties"][key]
            if isinstance(value, dict) and "properties" in inner and key not in ("resources", *PROBES):
                same(value, inner, f"{path}.{key}")

    same(yaml.safe_load((ENDPOINT / "values.yaml").read_text()), SCHEMA, "")


PROBES = ("livenessProbe", "readinessProbe")
"""These may have more than the defaults say."""
