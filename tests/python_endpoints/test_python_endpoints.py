"""Each test starts an endpoint of its own: these start slowly, so there are few tests, and each shows much."""

from __future__ import annotations

import pytest
from harness.endpoint import wait_for
from harness.functions import divide, double, payload

WAIT = 120


def test_a_python_endpoint_registers_runs_tasks_and_stops(endpoint, interchange, client):
    from globus_compute_sdk import Client, Executor, ShellFunction

    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert executor.submit(double, 21).result(WAIT) == 42
        values = [executor.submit(double, number) for number in range(50)]
        failing = executor.submit(divide, 1, 0)
        shell = executor.submit(ShellFunction("echo out"))
        large = executor.submit(payload, 2_000_000)
        assert [future.result(WAIT) for future in values] == [2 * number for number in range(50)]
        with pytest.raises(Exception, match="ZeroDivisionError"):
            failing.result(WAIT)
        assert shell.result(WAIT).stdout.strip() == "out"
        assert large.result(WAIT) == b"x" * 2_000_000

    compute = Client()
    assert compute.get_endpoint_status(endpoint.id)["status"] == "online"
    endpoint.run("stop", endpoint.name)
    endpoint.process.wait(60)
    wait_for(lambda: endpoint.service_status() == "offline", "the endpoint to be offline", 30)
