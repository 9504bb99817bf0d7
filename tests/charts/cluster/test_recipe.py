"""The recipe of Garden-AI, who ran the chart that Globus Compute had, to the letter."""

import pytest
import yaml
from harness.charts import VALUES
from harness.functions import by_value
from harness.kubernetes.cluster import KubectlError
from harness.kubernetes.release import Release

SDK = "globus-compute-endpoint<2.31"
"""What their workers install, from 2024."""


@pytest.fixture(scope="session")
def bare_python(cluster, builder):
    """As `python:3.11`: without the SDK. Pods find packages as if a package index were within reach."""
    image = builder.python_with_wheels(SDK)
    cluster.import_image(image.archive)
    return image


@pytest.fixture
def garden(installer, interchange, client, images, bare_python, make_namespace, make_endpoint):
    """Their steps: register an endpoint on a laptop, note its id and stop it; a Secret from a file of variables; their
    values. The namespace alone has another name, since other tests may have theirs."""
    laptop = make_endpoint(interchange, client, "direct", version="3.16.1")
    identity = laptop.id
    laptop.stop()
    namespace = make_namespace()
    values = yaml.safe_load((VALUES / "garden.yaml").read_text())
    values |= {"workerNamespace": namespace, "endpointUUID": identity, "workerImage": bare_python.name}
    release = Release(installer, interchange, images.agent, images.python, "garden-demo", namespace, values)
    release.create_secret("garden-demo-ep", client, family="FUNCX_SDK")
    return release


def test_a_secret_that_is_wiped_is_said_in_words_and_taken_up_when_it_is_back(garden, client):
    """Their trouble: CreateContainerConfigError, and no word of why."""
    garden.install()
    garden.wait_running()
    garden.kubectl("delete", "secret", "garden-demo-ep")
    garden.kubectl("delete", "pod", garden.agent())

    def waits() -> bool:
        try:
            return garden.status()["state"] == "waiting-for-credentials"
        except KubectlError:
            return False

    garden.cluster.wait(waits, "the agent to wait for credentials", 90, interval=0.5)
    assert "credentials      missing" in garden.run("status", "garden-demo")
    pod = garden.agent()
    garden.cluster.wait(lambda: warnings(garden, pod), "an Event about it", 60, interval=0.5)
    assert warnings(garden, pod) == {"CredentialsMissing"}
    (event,) = events(garden, pod, "CredentialsMissing")
    assert event["message"].startswith("The endpoint's credentials are missing: Nobody has logged in"), event
    garden.create_secret("garden-demo-ep", client, family="FUNCX_SDK")
    # The kubelet looks for what is mounted every minute or so.
    garden.wait_running(240)
    assert garden.id == garden.values["endpointUUID"]
    (container,) = garden.cluster.get("pod", pod, garden.namespace)["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert warnings(garden, pod) == {"CredentialsMissing"}, "nothing more is said once they are good"


def events(release: Release, pod: str, reason: str | None = None) -> list[dict]:
    """The Events about a pod that the agent has written."""
    found = release.cluster.get("events", namespace=release.namespace)["items"]
    own = [
        each
        for each in found
        if each["involvedObject"]["name"] == pod and each.get("reportingComponent") == "waypost.dev/endpoint"
    ]
    return [each for each in own if reason in (None, each["reason"])]


def warnings(release: Release, pod: str) -> set[str]:
    """What the agent has warned of by Events about its pod."""
    return {each["reason"] for each in events(release, pod) if each["type"] == "Warning"}


@by_value
def seen_by_a_task():
    """What Garden's tasks count on."""
    import os

    import globus_compute_sdk

    return {
        "sdk": globus_compute_sdk.__version__,
        "timeout": os.environ["GC_TASK_TIMEOUT"],
        "path": os.environ["PYTHONPATH"],
        "folder": os.path.isdir("/home/ubuntu"),
    }


def test_gardens_steps_work_to_the_letter(garden, make_executor):
    notes = garden.install()
    assert "secrets is now credentials.secretName" in notes
    assert "endpointUUID is now endpoint.uuid" in notes
    garden.wait_running()
    assert garden.id == garden.values["endpointUUID"]
    executor = make_executor(garden)
    seen = executor.submit(seen_by_a_task).result(timeout=280)
    assert seen["sdk"].startswith("2.")
    assert seen | {"sdk": ""} == {"sdk": "", "timeout": "1200", "path": ":/app:/home/ubuntu", "folder": True}
    # Their trouble: pods in CrashLoopBackOff "after a task has been completed", and pods of which nobody knew whose.
    (pod,) = garden.workers()
    assert pod["spec"]["restartPolicy"] == "Never"
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
    assert pod["metadata"]["name"].startswith("garden-demo-")
    garden.cluster.wait(lambda: not garden.workers(), "the pod to go when it is idle", 90, interval=0.5)
