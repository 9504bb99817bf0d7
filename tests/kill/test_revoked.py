"""An endpoint whose client is revoked while it runs."""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import checkout, processes
from harness.endpoint import wait_for
from harness.functions import double

WAIT = 120
EX_NOPERM = 77


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_a_revoked_client_s_endpoint_says_so_stops_cleanly_and_does_not_start(
    make_interchange, make_endpoint, become, kind
):
    from globus_compute_sdk import Executor

    interchange = make_interchange()
    client = interchange.create_client("revoked")
    endpoint = make_endpoint(interchange, client, kind)
    become(interchange, client)
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert executor.submit(double, 1).result(WAIT) == 2
    command = [interchange.binary, "client", "revoke", client.id]
    subprocess.run(command, env=interchange._environment(), check=True, timeout=60, capture_output=True)

    status = wait_for(lambda: refused(endpoint), "the endpoint to say that its credentials are refused", WAIT)
    assert endpoint.process.running, "a revocation may be taken back"
    endpoint.run("stop", endpoint.name)
    assert endpoint.process.wait(WAIT) == 0
    folder = str(endpoint.folder)
    wait_for(
        lambda: not [p for p in endpoint.keeper.descendants() if folder in p.command], "its processes to end", WAIT
    )

    done = endpoint.run("start", endpoint.name, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == EX_NOPERM, said
    assert "invalid_client" in said or "credentials" in said, said
    assert client.secret not in said + json.dumps(status) + endpoint.process.log.read_text()
    assert not [p for p in processes.all_processes() if client.secret in p.command]


def refused(endpoint):
    """The status once it tells that the broker takes the credentials no more."""
    status = endpoint.status()
    return status if "waiting-for-credentials" in json.dumps(status) else None
