"""Helm 3 makes of the chart what Helm 4 makes of it."""

import pytest
from harness.charts import ENDPOINT, VALUES

FILES = sorted(path.name for path in VALUES.glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_it_finds_nothing_and_makes_the_same(helm, helm_3, name):
    helm_3.run("lint", "--strict", ENDPOINT, "--values", VALUES / name)
    command = ["template", "lab", ENDPOINT, "--namespace", "here", "--kube-version", "1.34", "--values", VALUES / name]
    # A file's name stands before each object, and a line's end after it, in one way or another.
    assert helm_3.run(*command).split() == helm.run(*command).split()
