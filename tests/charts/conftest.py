"""The charts as Helm renders them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness.charts import ENDPOINT
from harness.keeper import Keeper
from harness.kubernetes import programs
from harness.kubernetes.helm import Helm
from harness.rendered import Rendered


@pytest.fixture(scope="session")
def helm(keeper: Keeper) -> Helm:
    """Helm 4, built if it is not there yet."""
    programs.build(keeper, [programs.HELM])
    return Helm()


@pytest.fixture(scope="session")
def helm_3(keeper: Keeper) -> Helm:
    """Helm 3, built if it is not there yet."""
    programs.build(keeper, [programs.HELM_3])
    helm = Helm(program=programs.path(programs.HELM_3))
    assert helm.run("version", "--short").startswith("v3.")
    return helm


@pytest.fixture(scope="session", params=["helm", "helm_3"])
def each_helm(request: pytest.FixtureRequest) -> Helm:
    """Helm 4, and then Helm 3."""
    return request.getfixturevalue(request.param)


Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Renders the endpoint's chart as the release `lab` in the namespace `here`. HelmError if it is refused."""

    def render(values: dict | None = None, *arguments: str, release: str = "lab") -> Rendered:
        return Rendered.by(helm, ENDPOINT, values, *arguments, release=release)

    return render
