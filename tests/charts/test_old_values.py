"""Values of the chart that Globus Compute had, and of Garden's."""

import pytest
import yaml
from harness.charts import ENDPOINT, VALUES

OLD = yaml.safe_load((VALUES / "old.yaml").read_text())
GARDEN = yaml.safe_load((VALUES / "garden.yaml").read_text())


@pytest.fixture(scope="module")
def old(render):
    return render(OLD, release="garden-demo")


def test_an_old_file_is_taken_with_its_meaning(old):
    provider = old.engine()["provider"]
    said = {
        "image": "python:3.10",
        "worker_init": "pip install globus-compute-endpoint>=2.0.0",
        "namespace": "default",
        "init_mem": "500Mi",
        "max_mem": "1600Mi",
        "init_cpu": 1,
        "max_cpu": 2,
        "init_blocks": 0,
        "min_blocks": 1,
        "max_blocks": 100,
        "secret": ["registry"],
        "env": [{"name": "GC_TASK_TIMEOUT", "value": "1200"}],
    }
    assert {key: provider[key] for key in said} == said
    assert old.engine()["max_workers_per_node"] == 1
    assert old.engine()["job_status_kwargs"] == {"max_idletime": 3600}
    assert old.configuration()["display_name"] == "The old one"
    agent = old.agent()
    assert agent["args"] == ["start", "old", f"--endpoint-uuid={OLD['endpointUUID']}", "--log-to-console", "--debug"]
    assert agent["imagePullPolicy"] == "Always"
    assert agent["resources"] == OLD["resources"]
    assert old.environment()["WAYPOST_SERVICE_URL"] == "https://compute.api.globus.org"
    assert old.one("Deployment")["metadata"]["name"] == "garden-demo-globus-compute-endpoint"
    (credentials,) = [v for v in old.pod()["spec"]["volumes"] if v["name"] == "credentials"]
    assert credentials["secret"]["secretName"] == "my-secrets"
    assert ("Role", "garden-demo-globus-compute-endpoint-workers", "default") in old


def test_gardens_file_is_taken_with_its_meaning(render):
    garden = render(GARDEN, release="garden-demo")
    provider = garden.engine()["provider"]
    assert provider["namespace"] == "dlhub"
    assert provider["worker_init"] == GARDEN["workerInit"]
    assert provider["security_profile"] == "image"
    assert provider["env"] == [{"name": "GC_TASK_TIMEOUT", "value": "1200"}]
    assert f"--endpoint-uuid={GARDEN['endpointUUID']}" in garden.agent()["args"]


def test_every_old_value_is_tried(render):
    table = [line for line in (ENDPOINT / "README.md").read_text().splitlines() if "| (old)" in line]
    names = {line.split("`")[1] for line in table}
    assert len(names) == 25
    assert names - set(OLD) == set()


def test_an_old_value_goes_before_the_new_one(render):
    assert render({"workerImage": "old:1", "worker": {"image": "new:1"}}).engine()["provider"]["image"] == "old:1"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://compute.api.globus.org", "https://compute.api.globus.org"),
        ("https://site.example/v2", "https://site.example"),
        ("https://site.example/gc/", "https://site.example/gc"),
    ],
)
def test_the_address_of_a_service_has_no_version(render, given, url):
    assert render({"funcXServiceAddress": given}).environment()["WAYPOST_SERVICE_URL"] == url
