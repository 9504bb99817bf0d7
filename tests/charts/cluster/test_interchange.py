"""The interchange's chart on a real Kubernetes: two replicas on PostgreSQL and RabbitMQ, and an unmodified SDK."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess

import pytest
import yaml
from harness.charts import INTERCHANGE
from harness.kubernetes import addresses
from harness.kubernetes.helm import HelmError
from harness.kubernetes.interchange import InstalledInterchange
from harness.postgresql import PostgreSQL

TASKS = 300
"""Submitted one after the other while the replicas are replaced."""

LOAD = f"""
import json, sys, threading
from globus_compute_sdk import Client, Executor

def double(x):
    return 2 * x

executor = Executor(endpoint_id=sys.argv[1], api_burst_limit=1000, api_burst_window_s=1, batch_size=4)
print(json.dumps(executor.submit(double, 21).result(120)), flush=True)
go_on = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), go_on.set()), daemon=True).start()
futures = []
# At least so many, and until the replicas are replaced.
while len(futures) < {TASKS} or not go_on.is_set():
    futures.append(executor.submit(double, len(futures)))
    if len(futures) % 10 == 0:
        futures[-10].result(120)
wrong = [number for number, future in enumerate(futures) if future.result(120) != 2 * number]
print(json.dumps([len(futures), wrong]), flush=True)
executor.shutdown()
"""


@pytest.fixture(scope="module")
def pods_database(keeper, cluster):
    """Makes an empty PostgreSQL database that pods reach, and gives its address."""
    server = PostgreSQL(keeper, name="postgresql-of-pods", address=addresses.HOST).start()
    numbers = itertools.count(1)
    return lambda: server.create_database(f"tests_{next(numbers)}")


@pytest.fixture(scope="module")
def interchange_image(cluster, builder):
    image = builder.interchange()
    cluster.import_image(image.archive)
    return image


@pytest.fixture
def installed(installer, interchange_image, make_namespace, pods_database, broker, virtual_host):
    """The chart's release, not installed yet, in a namespace that admits restricted pods only."""
    release = InstalledInterchange(installer, "compute", make_namespace(enforce="restricted"), interchange_image)
    release.create_secrets(pods_database(), broker, virtual_host())
    yield release
    with contextlib.suppress(Exception):
        release.uninstall()


def left(release):
    """All that is in the namespace, by kind and name, but what Kubernetes puts into each."""
    kinds = (
        "deployments,replicasets,pods,services,secrets,configmaps,serviceaccounts,roles,rolebindings,"
        "networkpolicies,poddisruptionbudgets,ingresses,jobs,persistentvolumeclaims"
    )
    found = json.loads(release.kubectl("get", kinds, "--output", "json"))["items"]
    names = {f"{each['kind']}/{each['metadata']['name']}" for each in found}
    return sorted(names - {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"})


def test_the_api_server_takes_everything_that_is_made(installer, make_namespace):
    namespace = make_namespace(enforce="restricted")
    values = {
        "database": {"secretName": "a"},
        "broker": {"secretName": "b", "publicUrl": "amqps://broker.example.org:5671/%2F"},
        "options": {"tokenLifetime": 3600, "taskQueueType": "quorum"},
        "ingress": {"enabled": True, "host": "compute.example.org", "tlsSecretName": "tls", "className": "nginx"},
        "networkPolicy": {"from": [{"namespaceSelector": {}}]},
        "metrics": {"scrapeAnnotations": True, "dashboard": {"enabled": True}},
    }
    said = installer.run(
        *["install", "compute", INTERCHANGE, "--namespace", namespace, "--dry-run=server", "--values", "-"],
        input=yaml.safe_dump(values),
    )
    assert "kind: Ingress" in said and "kind: Deployment" in said
    manifests = said[said.index("MANIFEST:\n") + len("MANIFEST:\n") : said.index("NOTES:")]
    installer.cluster.kubectl(
        *["apply", "--dry-run=server", "--validate=strict", "--namespace", namespace, "--filename", "-"],
        input=manifests,
    )


def test_replicas_are_replaced_under_load_and_an_uninstall_leaves_the_key_alone(
    installed, make_endpoint, clients, tmp_path
):
    notes = installed.change("install", "--wait", "--timeout=300s")
    assert "interchange client create --name" in notes and "user add" in notes
    assert len(installed.pods()) == 2
    installed.wait_ready()
    client = installed.create_client()
    endpoint = make_endpoint(installed, client, "direct", python=clients("4.19.0").python)
    load = subprocess.Popen(
        [clients("4.19.0").python, "-c", LOAD, endpoint.id],
        env=installed.client_environment(client, tmp_path / "sdk"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "errors").open("wb"),
        text=True,
    )
    try:
        first = load.stdout.readline()
        assert json.loads(first or "null") == 42, (tmp_path / "errors").read_text()[-4000:]
        before = {pod["metadata"]["name"] for pod in installed.pods()}
        installed.change("upgrade", "--wait", "--timeout=300s", values={"podAnnotations": {"replaced": "yes"}})

        def replaced():
            now = {pod["metadata"]["name"] for pod in installed.pods()}
            return len(now) == 2 and not now & before

        installed.cluster.wait(replaced, "the pods of before to be gone", 120)
        out, _ = load.communicate("", timeout=300)
        count, wrong = json.loads(out or "null")
        assert count >= TASKS and wrong == []
    finally:
        load.kill()
        load.wait()
    endpoint.stop()

    key = installed.cluster.get("secret", "compute-key", installed.namespace)["data"]["key"]
    assert len(base64.b64decode(key)) == 64
    installed.uninstall()
    installed.cluster.wait(
        lambda: left(installed) == ["Secret/broker", "Secret/compute-key", "Secret/database"], "all else to be gone"
    )
    installed.change("install", "--wait", "--timeout=300s")
    again = installed.cluster.get("secret", "compute-key", installed.namespace)["data"]["key"]
    assert again == key, "the passwords of the broker's users would be others"
    assert client.id in installed.command("client", "list")


def test_a_person_is_added_by_the_command_that_the_notes_print(installed):
    installed.change("install", "--wait", "--timeout=300s", values={"replicaCount": 1})
    added = installed.kubectl(
        *["exec", "--stdin", "deployment/compute", "--", "/usr/local/bin/interchange", "user", "add", "ada"],
        input="correct horse battery\n",
    )
    assert "added ada" in added and "ada" in installed.command("user", "list")


def test_a_test_goes_a_clients_way_through_the_service(installed):
    # It calls the Service by its name, and this cluster has no name server.
    installed.change("install", "--wait", "--timeout=300s", values={"replicaCount": 1})
    name = f"{installed.name}.{installed.namespace}.svc"
    aliases = [{"ip": installed.address, "hostnames": [name]}]
    installed.change("upgrade", "--wait", "--timeout=300s", values={"hostAliases": aliases})
    installed.wait_ready()
    said = installed.test()
    assert f"http://{name}:5000/ is ready" in said and "a client can connect to the broker" in said
    installed.kubectl("delete", "deployment", installed.name)
    # A pod that ends is called as long as there is no other.
    installed.cluster.wait(lambda: not installed.pods(), "the replica to be gone", 90)
    with pytest.raises(HelmError, match="the interchange is not ready"):
        installed.test()
