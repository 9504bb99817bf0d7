"""An endpoint whose client is revoked while it runs.

A revocation at the interchange takes the broker's users away as well, and so the way for results. Where only the login
ends, as with Globus, results go on arriving: see python_endpoints/test_mounted_logins.py.
"""

from __future__ import annotations

import json

import pytest
from harness import checkout, processes
from harness.endpoint import wait_for
from harness.functions import double
from harness.submitter import Submitter

WAIT = 120
EX_NOPERM = 77
KEPT = "1 result that the broker did not take is kept in the journal; the next start delivers it."


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
    interchange.command("client", "revoke", client.id)

    status = wait_for(lambda: refused(endpoint), "the endpoint to say that its credentials are refused", WAIT)
    assert endpoint.process.running, "a revocation may be taken back"
    done = endpoint.run("stop", endpoint.name)
    assert "kept in the journal" not in done.stdout, "there is nothing to keep"
    ended(endpoint)

    done = endpoint.run("start", endpoint.name, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == EX_NOPERM, said
    assert "what is in hand goes on" not in said, "nothing is: it does not start"
    assert "invalid_client" in said or "credentials" in said, said
    assert client.secret not in said + json.dumps(status) + endpoint.process.log.read_text()
    assert not [p for p in processes.all_processes() if client.secret in p.command]


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_a_task_that_runs_at_the_revocation_ends_and_its_result_is_held_and_kept_by_a_stop(
    make_interchange, make_endpoint, keeper, clients, kind, tmp_path
):
    interchange = make_interchange()
    client = interchange.create_client("revoked")
    endpoint = make_endpoint(interchange, client, kind)
    environment = interchange.client_environment(client, tmp_path / "client")
    submitter = Submitter(keeper, clients("4.19.0"), environment, endpoint.id, tmp_path / "task")
    # The status is written a little after what it tells.
    wait_for(lambda: work(endpoint.status()) == (1, 1), "the task to be told as running", WAIT)
    interchange.command("client", "revoke", client.id)

    status = wait_for(lambda: refused(endpoint), "the endpoint to say that its credentials are refused", WAIT)
    assert work(status) == (1, 1), "the task runs on"
    submitter.gate.touch()
    wait_for(lambda: work(endpoint.status()) == (0, 1), "the task to end, and its result to be held", WAIT)
    assert refused(endpoint), "there is nobody to give it to, and it is not thrown away"
    submitter.process.kill()
    # Which fails if the endpoint has not ended within a minute.
    done = endpoint.run("stop", endpoint.name, timeout=WAIT)
    assert KEPT in done.stdout, done.stdout
    assert "which refuses the credentials" in endpoint.process.said()
    ended(endpoint)


def test_a_result_that_a_stop_could_not_deliver_is_delivered_by_the_next_start(
    make_interchange, make_endpoint, broker, keeper, clients, tmp_path
):
    """The broker has lost the endpoint's user, and the service that would make it anew is away."""
    interchange = make_interchange()
    client = interchange.create_client("interrupted")
    endpoint = make_endpoint(interchange, client, "direct")
    environment = interchange.client_environment(client, tmp_path / "client")
    submitter = Submitter(keeper, clients("4.19.0"), environment, endpoint.id, tmp_path / "task")
    wait_for(lambda: work(endpoint.status()) == (1, 1), "the task to be told as running", WAIT)
    interchange.kill()
    broker.api("DELETE", f"/api/users/waypost.endpoint.{endpoint.id}")
    wait_for(lambda: refused(endpoint), "the endpoint to say that its credentials are refused", WAIT)
    submitter.gate.touch()
    wait_for(lambda: work(endpoint.status()) == (0, 1), "the task to end, and its result to be held", WAIT)
    done = endpoint.run("stop", endpoint.name, timeout=WAIT)
    assert KEPT in done.stdout, done.stdout
    ended(endpoint)

    submitter.running.unlink()
    interchange.start()
    endpoint.start()
    assert submitter.result() == submitter.running.name
    assert not submitter.running.exists(), "it was not run again"
    wait_for(lambda: work(endpoint.status()) == (0, 0), "its delivery to be settled", WAIT)


def ended(endpoint) -> None:
    """Its process has ended well, and nothing of it is left."""
    assert endpoint.process.wait(WAIT) == 0
    folder = str(endpoint.folder)
    wait_for(
        lambda: not [p for p in endpoint.keeper.descendants() if folder in p.command], "its processes to end", WAIT
    )


def work(status) -> tuple[int, int]:
    """How many tasks run, and how many are held in any state."""
    user_endpoints = status["user_endpoints"]
    return sum(each["tasks_running"] for each in user_endpoints), sum(each["tasks_held"] for each in user_endpoints)


def refused(endpoint):
    """The status once it tells that the broker takes the credentials no more."""
    status = endpoint.status()
    return status if "waiting-for-credentials" in json.dumps(status) else None
