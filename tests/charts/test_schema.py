import json

import pytest
import yaml
from harness.charts import ENDPOINT
from harness.kubernetes.helm import HelmError

SCHEMA = json.loads((ENDPOINT / "values.schema.json").read_text())
OLD_WORDS = "Please specify EXACTLY one of 'useClientCredentials' (boolean) or 'useUserCredentials' (boolean)"

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

REFUSED_IN_WORDS = {
    "both kinds of credentials": ({"useClientCredentials": True, "useUserCredentials": True}, OLD_WORDS),
    "a client without a Secret": (
        {"useClientCredentials": True},
        "Missing `secrets` store specification for client credentials: set `secrets`, or `credentials.secretName`",
    ),
    "the old default of the service": (
        {"funcXServiceAddress": "curl  https://compute.api.globus.org"},
        'funcXServiceAddress: "curl  https://compute.api.globus.org" is not a URL. Write `webService: {url: ',
    ),
    "the image of the Python endpoint": (
        {"image": {"repository": "funcx/kube-endpoint", "tag": "main-3.11"}},
        "image.repository: funcx/kube-endpoint is the image of the Python endpoint, which this chart does not run. "
        "Remove image.repository and image.tag",
    ),
    "a tag and a digest": (
        {"image": {"tag": "1", "digest": f"sha256:{'0' * 64}"}},
        "image.tag and image.digest are both set, and say which image: keep exactly one of them",
    ),
    "an engine beside the values": (
        {"endpoint": {"config": {"engine": {}}}},
        "endpoint.config.engine: the engine is made of `worker`",
    ),
    "a template without one": (
        {"endpoint": {"kind": "direct", "userConfigTemplate": "engine: {}"}},
        "endpoint.kind is `direct`, which has no template",
    ),
    "more to keep than to have": (
        {"minBlocks": 5, "maxBlocks": 4},
        "worker.minBlocks is 5, more than worker.maxBlocks (4)",
    ),
    "the end of what a template takes as it is": (
        {"worker": {"init": "echo {%- endraw %}"}},
        "worker: a value has `{% endraw %}` in it",
    ),
    "a claim without persistence": (
        {"persistence": {"existingClaim": "mine"}},
        "persistence.existingClaim is set, and persistence.enabled is false",
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
def test_the_schema_refuses(render, name):
    values, words = REFUSED[name]
    with pytest.raises(HelmError) as refused:
        render(values)
    assert "values don't meet the specifications of the schema" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", REFUSED_IN_WORDS)
def test_what_does_not_go_together_is_refused_in_words(render, name):
    values, words = REFUSED_IN_WORDS[name]
    with pytest.raises(HelmError) as refused:
        render(values)
    assert words in str(refused.value)


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
