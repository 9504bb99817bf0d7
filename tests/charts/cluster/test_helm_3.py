"""The chart installed by Helm 3."""

import pytest
from harness.functions import double
from harness.kubernetes import programs
from harness.kubernetes.helm import Helm


@pytest.fixture(scope="module")
def installer(keeper, cluster):
    """In place of Helm 4."""
    programs.build(keeper, [programs.HELM_3])
    return Helm(cluster, programs.path(programs.HELM_3))


def test_it_installs_upgrades_and_uninstalls(make_release, make_executor):
    release = make_release()
    release.install()
    release.wait_running()
    assert make_executor(release).submit(double, 4).result(timeout=120) == 8
    before = release.agent()
    release.upgrade({"podLabels": {"upgraded": "yes"}})
    gone = ["get", "pod", before, "--namespace", release.namespace]
    release.cluster.wait(lambda: release.cluster.run_kubectl(*gone).returncode, "the agent to be replaced", 90)
    release.wait_running()
    assert make_executor(release).submit(double, 5).result(timeout=120) == 10
    release.uninstall()
    deployments = release.kubectl("get", "deployments,services,roles,networkpolicies", "--output", "name")
    assert deployments == ""
