"""Every object as the API server would take it."""

import pytest
import yaml
from harness.charts import ENDPOINT, VALUES
from harness.kubernetes import operator
from harness.kubernetes.release import merged


@pytest.fixture(scope="module", autouse=True)
def _kinds(cluster):
    operator.define(cluster)


@pytest.mark.parametrize("name", [None, *sorted(path.name for path in VALUES.glob("*.yaml"))])
def test_the_api_server_takes_every_object(cluster, installer, make_namespace, name):
    release, workers, more = make_namespace(), make_namespace(), make_namespace()
    values = yaml.safe_load((VALUES / name).read_text()) if name else {}
    # The namespaces that a file names are not there.
    if "workerNamespace" in values:
        values["workerNamespace"] = workers
    elif "namespace" in values.get("worker", {}):
        values = merged(values, {"worker": {"namespace": workers, "extraNamespaces": [more]}})
    command = ["template", "lab", ENDPOINT, "--namespace", release, "--values", "-"]
    objects = installer.run(*command, input=yaml.safe_dump(values))
    # One after the other: on a machine that has much else to do that takes its time.
    apply = ["apply", "--dry-run=server", "--validate=strict", "--filename", "-"]
    said = cluster.kubectl(*apply, input=objects, timeout=240)
    made = [line for line in said.splitlines() if line.endswith("created (server dry run)")]
    assert len(made) == len([thing for thing in yaml.safe_load_all(objects) if thing]), said
    # And as Helm itself asks for it, with what it looks up in the cluster.
    install = ["install", "lab", ENDPOINT, "--namespace", release, "--dry-run=server", "--values", "-"]
    assert "10.96.0.1/32" in installer.run(*install, input=yaml.safe_dump(values)) or name == "everything.yaml"
