"""Two interchanges on one PostgreSQL and one broker are one service."""

from __future__ import annotations

import pytest
from harness import checkout
from harness.functions import double, leave_mark

WAIT = 120


@pytest.fixture
def replicas(make_interchange, database, virtual_host, tmp_path):
    """Two replicas: same database, same virtual host, same key."""
    shared = {"database": database(), "virtual_host": virtual_host()}
    key = {"WAYPOST_INTERCHANGE_KEY_FILE": str(tmp_path / "key")}
    return [make_interchange(environment=key, **shared) for _ in range(2)]


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_what_one_replica_was_told_the_other_knows(replicas, make_endpoint, become, tmp_path, kind):
    """The endpoint registers at one replica; tasks are submitted to the other, which is then killed."""
    from globus_compute_sdk import Executor

    first, second = replicas
    client = first.create_client("replicated")
    endpoint = make_endpoint(first, client, kind)
    become(second, client)
    (tmp_path / "marks").mkdir()
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert executor.submit(double, 3).result(WAIT) == 6
        marks = str(tmp_path / "marks")
        futures = [executor.submit(leave_mark, marks, f"task-{number}", 0.02) for number in range(200)]
        assert futures[20].result(WAIT) == "task-20"
        first.kill()
        assert [future.result(WAIT) for future in futures] == [f"task-{number}" for number in range(200)]
        assert len(list((tmp_path / "marks").iterdir())) == 200
        first.start()
        assert executor.submit(double, 4).result(WAIT) == 8
