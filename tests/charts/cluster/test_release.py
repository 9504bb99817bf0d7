"""Install, test, upgrade, roll back, uninstall: as a user does it."""

import json
import re

import pytest
import yaml
from harness.charts import ENDPOINT, VALUES
from harness.functions import by_value, double
from harness.kubernetes.endpoint import engine
from harness.kubernetes.helm import HelmError

OURS = "all,secrets,configmaps,roles,rolebindings,serviceaccounts,networkpolicies,persistentvolumeclaims,leases"


STAYS = {"worker": {"maxIdleTime": 600}}
"""A worker pod that is there to be counted."""


@by_value
def place_after(seconds, number):
    """A task that takes its time, and says where it ran."""
    import socket
    import time

    time.sleep(seconds)
    return number, socket.gethostname()


@by_value
def who_am_i():
    """The user that a task runs as, which has written to its home."""
    import os
    import pathlib

    (pathlib.Path.home() / "mark").write_text("here")
    return os.getuid()


def left(release, namespace=None) -> set[str]:
    """What is in a namespace, but for what Kubernetes puts into each."""
    names = release.cluster.kubectl("get", OURS, "--namespace", namespace or release.namespace, "--output", "name")
    # And but for what Helm notes of an install that failed.
    others = {"configmap/kube-root-ca.crt", "serviceaccount/default", "secret/sh.helm.release.v1.lab.v1"}
    return set(names.split()) - others


def wait_until_left(release, wanted: set[str], namespace=None) -> None:
    # Kubernetes' own garbage collector removes what the anchor owned, and it takes a moment.
    release.cluster.wait(lambda: left(release, namespace) == wanted, f"only {wanted} to be left", 90, interval=0.5)


def test_an_endpoint_is_installed_tested_and_removed_but_for_its_state(make_release, make_executor):
    release = make_release(STAYS)
    release.install()
    release.wait_running()
    identity = release.id
    assert f"A task on the endpoint {identity} says that 2 to the power of 10 is 1024." in release.test()
    assert len(release.workers()) == 1
    release.uninstall()
    wait_until_left(release, {"secret/lab-state", "secret/lab-credentials"})
    # Installed again, it is the same.
    release.install()
    release.wait_running()
    assert release.id == identity
    release.upgrade({"state": {"keep": False}})
    release.uninstall()
    wait_until_left(release, {"secret/lab-credentials"})


def test_an_upgrade_and_a_rollback_lose_no_task(make_release, make_executor):
    release = make_release({"worker": {"maxBlocks": 4}})
    release.install()
    release.wait_running()
    identity = release.id
    executor = make_executor(release)
    long = [executor.submit(place_after, 25, number) for number in range(4)]
    release.cluster.wait(lambda: release.status()["tasks_running"] == 4, "four tasks to run", 120, interval=0.5)
    pods = {pod["metadata"]["name"] for pod in release.workers()}
    before = release.agent()
    release.upgrade({"podLabels": {"upgraded": "yes"}, "worker": {"maxBlocks": 5}})
    meanwhile = [executor.submit(double, number) for number in range(8)]
    release.cluster.wait(
        lambda: release.cluster.run_kubectl("get", "pod", before, "-n", release.namespace).returncode,
        "the agent to be replaced",
    )
    release.wait_running()
    release.rollback()
    # Each ran on in the pod that it began in.
    answers = [future.result(timeout=180) for future in long]
    assert [number for number, _ in answers] == [0, 1, 2, 3]
    assert {place for _, place in answers} == pods
    assert [future.result(timeout=180) for future in meanwhile] == [2 * number for number in range(8)]
    release.wait_running()
    assert release.id == identity
    release.uninstall()
    wait_until_left(release, {"secret/lab-state", "secret/lab-credentials"})


def test_the_notes_are_commands_that_work_as_printed(make_release, client, tmp_path):
    release = make_release(secret=False)
    notes = release.install()
    commands = [line.strip() for line in notes.splitlines() if re.match(r"  (kubectl|helm) ", line)]
    assert len(commands) == 9, notes
    (secret,) = [line for line in commands if "create secret" in line]
    (tmp_path / "credentials.env").write_text(
        f"GLOBUS_COMPUTE_CLIENT_ID={client.id}\nGLOBUS_COMPUTE_CLIENT_SECRET={client.secret}\n"
    )
    for command in [secret, *(line for line in commands if line != secret)]:
        done = release.shell(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if "endpoint status" in command:
            assert "endpoint id" in done.stdout
    wait_until_left(release, {"secret/lab-credentials"})


def test_a_configuration_that_is_wrong_is_said_before_anything_is_made(make_release):
    release = make_release({"worker": {"provider": {"no_such_option": 1}}})
    done = release.helm.complete(
        *("install", "lab", ENDPOINT, "--namespace", release.namespace, "--values", "-"),
        input=json.dumps(release.values),
    )
    assert done.returncode != 0
    assert "no_such_option" in done.stdout + done.stderr
    wait_until_left(release, {"secret/lab-credentials"})


def test_an_unknown_value_is_refused(make_release):
    with pytest.raises(HelmError, match="additional properties 'workers' not allowed"):
        make_release({"workers": {}}).install()


def test_two_releases_share_a_namespace(make_release):
    one = make_release(STAYS, name="one")
    two = make_release(STAYS, name="two", namespace=one.namespace)
    for release in (one, two):
        release.install()
    for release in (one, two):
        release.wait_running()
        release.test()
    assert one.id != two.id
    assert [len(release.workers()) for release in (one, two)] == [1, 1]
    one.uninstall()
    one.cluster.wait(lambda: not one.workers(), "the first one's workers to end", 60)
    two.test()


def test_workers_are_in_another_namespace_and_end_with_the_release(make_release, make_namespace):
    elsewhere = make_namespace()
    release = make_release({"worker": {"namespace": elsewhere, "maxIdleTime": 600}})
    release.install()
    release.wait_running()
    release.test()
    assert (len(release.workers()), len(release.workers(elsewhere))) == (0, 1)
    release.uninstall()
    wait_until_left(release, {"secret/lab-state", "secret/lab-credentials"})
    wait_until_left(release, set(), elsewhere)


def test_workers_of_one_endpoint_are_in_several_namespaces_and_end_with_the_release(
    make_release, make_namespace, make_executor, images
):
    places = [make_namespace(), make_namespace()]
    blocks = json.dumps(engine(images.python.name, "PLACE", job_status_kwargs={"max_idletime": 600}))
    # A template puts quotes around a text by itself.
    template = f"engine: {blocks.replace(json.dumps('PLACE'), '{{ place }}')}\n"
    schema = {"type": "object", "properties": {"place": {"type": "string", "enum": places}}, "required": ["place"]}
    endpoint = {"userConfigTemplate": template, "userConfigSchema": schema}
    release = make_release({"worker": {"namespace": places[0], "extraNamespaces": places[1:]}, "endpoint": endpoint})
    release.install()
    release.wait_running()
    executors = [make_executor(release, user_endpoint_config={"place": place}) for place in places]
    futures = [executor.submit(double, number) for number, executor in enumerate(executors)]
    assert [future.result(timeout=120) for future in futures] == [0, 2]
    assert [len(release.workers(place)) for place in [release.namespace, *places]] == [0, 1, 1]
    release.uninstall()
    wait_until_left(release, {"secret/lab-state", "secret/lab-credentials"})
    for place in places:
        wait_until_left(release, set(), place)


def test_a_journal_is_kept_on_a_volume(make_release, make_executor, make_volume):
    name, folder = make_volume()
    release = make_release({"persistence": {"enabled": True, "storageClass": name, "size": "64Mi"}})
    notes = release.install()
    assert "Without persistence" not in notes
    release.wait_running()

    def journal() -> tuple[str, int]:
        """The folder of the one journal that there is, and the number of its last file."""
        files = sorted(folder.rglob("*.journal"))
        (room,) = {str(path.parent) for path in files}
        return room, int(files[-1].stem)

    assert make_executor(release).submit(double, 2).result(timeout=120) == 4
    room, number = journal()
    release.kubectl("delete", "pod", release.agent())
    release.wait_running()
    assert make_executor(release).submit(double, 3).result(timeout=120) == 6
    # The next agent has read it and goes on with it: one that found nothing would begin with the first file.
    again, later = journal()
    assert again == room and later > number
    release.uninstall()
    wait_until_left(release, {"secret/lab-state", "secret/lab-credentials"})


def test_a_platform_may_choose_every_user_and_group(make_release, make_executor, make_platform):
    namespace, user = make_platform()
    values = yaml.safe_load((VALUES / "openshift.yaml").read_text())
    release = make_release(values, namespace=namespace)
    release.install()
    release.wait_running()
    assert make_executor(release).submit(who_am_i).result(timeout=120) == user
    release.test()
    fixed = make_release(name="fixed", namespace=namespace)
    with pytest.raises(HelmError):
        fixed.install("--timeout=20s")
    events = fixed.kubectl("get", "events", "--output", "jsonpath={..message}")
    assert f"only the user {user} may run here" in events


def test_a_namespace_may_enforce_what_it_likes(make_release, make_namespace):
    namespace = make_namespace(enforce="restricted", **{"enforce-version": "latest"})
    release = make_release(namespace=namespace)
    limits = {"default": {"cpu": "500m", "memory": "512Mi"}, "max": {"cpu": "2", "memory": "1Gi"}, "type": "Container"}
    release.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "limits", "namespace": namespace},
            "spec": {"limits": [limits]},
        },
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "quota", "namespace": namespace},
            "spec": {"hard": {"limits.cpu": "8", "limits.memory": "4Gi", "pods": "10", "requests.memory": "4Gi"}},
        },
    )
    release.install()
    release.wait_running()
    release.test()
