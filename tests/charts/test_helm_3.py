"""Helm 3 makes of the chart what Helm 4 makes of it."""

import pytest
from harness.charts import ENDPOINT, VALUES
from harness.kubernetes import programs
from harness.kubernetes.helm import Helm, HelmError

FILES = sorted(path.name for path in VALUES.glob("*.yaml"))


@pytest.fixture(scope="module")
def helm_3(keeper):
    programs.build(keeper, [programs.HELM_3])
    helm = Helm(program=programs.path(programs.HELM_3))
    assert helm.run("version", "--short").startswith("v3.")
    return helm


@pytest.mark.parametrize("name", FILES)
def test_it_finds_nothing_and_makes_the_same(helm, helm_3, name):
    helm_3.run("lint", "--strict", ENDPOINT, "--values", VALUES / name)
    command = ["template", "lab", ENDPOINT, "--namespace", "here", "--kube-version", "1.34", "--values", VALUES / name]
    # A file's name stands before each object, and a line's end after it, in one way or another.
    assert helm_3.run(*command).split() == helm.run(*command).split()


def test_it_refuses_what_the_schema_refuses(helm_3):
    with pytest.raises(HelmError, match="(?s)values don't meet the specifications.*wrokerImage"):
        helm_3.run("template", "lab", ENDPOINT, "--set", "wrokerImage=python")
