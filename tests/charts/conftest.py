"""The charts as Helm renders them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
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


Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Renders the endpoint's chart as the release `lab` in the namespace `here`. HelmError if it is refused."""

    def render(values: dict | None = None, *arguments: str, release: str = "lab") -> Rendered:
        command = ["template", release, ENDPOINT, "--namespace", "here", *arguments, "--values", "-"]
        text = helm.run(*command, input=yaml.safe_dump(values or {}))
        objects = [thing for thing in yaml.safe_load_all(text) if thing]
        keys = [(thing["kind"], thing["metadata"]["name"], thing["metadata"].get("namespace", "")) for thing in objects]
        assert len(set(keys)) == len(keys), "an object is made twice"
        return Rendered(zip(keys, objects, strict=True))

    return render
