"""Two agents for one endpoint, as after a node was lost and came back: the one that consumes first serves alone."""

from __future__ import annotations

import shutil

import pytest
from harness import checkout
from harness.endpoint import Endpoint, wait_for
from harness.functions import environment

WAIT = 120


def place(executor) -> str:
    """The agent, by its folder, whose worker ran a task."""
    return executor.submit(environment, "GLOBUS_COMPUTE_USER_DIR").result(WAIT)


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_the_second_agent_of_an_endpoint_waits_and_takes_over_when_the_first_is_gone(
    keeper, interchange, client, make_endpoint, kind, tmp_path
):
    from globus_compute_sdk import Executor

    python = checkout.clients("4.19.0").python
    first = make_endpoint(interchange, client, kind, python=python)
    second = Endpoint(
        keeper, checkout.binary("endpoint"), interchange, client, kind, first.name, python=python, folder=tmp_path
    )
    second.own_folder.mkdir()
    for name in ("config.yaml", "endpoint.json", "user_config_template.yaml.j2", "user_config_schema.json"):
        if (first.own_folder / name).exists():
            shutil.copy(first.own_folder / name, second.own_folder)
    with Executor(endpoint_id=first.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert place(executor) == str(first.folder)
        second.start(wait=False)
        try:
            wait_for(lambda: state(second) == "standby", "the second to wait", WAIT)
            assert second.id == first.id
            assert [place(executor) for _ in range(5)] == [str(first.folder)] * 5
            assert state(second) == "standby" and state(first) == "running"
            first.kill()
            wait_for(lambda: state(second) == "running", "the second to take over", WAIT)
            assert [place(executor) for _ in range(5)] == [str(second.folder)] * 5
        finally:
            second.stop()


def state(endpoint) -> str:
    """What the status says of it; empty while it does not answer."""
    done = endpoint.run("status", endpoint.name, check=False)
    for word in ("standby", "running"):
        if word in done.stdout:
            return word
    return ""
