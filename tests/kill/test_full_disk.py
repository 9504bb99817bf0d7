"""The disk with the endpoint's folder is full: it goes on, says so, and loses nothing."""

from __future__ import annotations

import pytest
from harness import checkout
from harness.endpoint import wait_for
from harness.functions import double, leave_mark
from harness.small_disk import SmallDisk

WAIT = 120


@pytest.fixture
def disk(keeper):
    disk = SmallDisk(keeper, "agent-disk", 16)
    yield disk
    disk.end()


@pytest.mark.parametrize("kind", checkout.KINDS)
def test_an_endpoint_whose_disk_is_full_runs_its_tasks_once_and_goes_on(
    make_endpoint, interchange, client, disk, tmp_path, kind
):
    from globus_compute_sdk import Executor

    endpoint = make_endpoint(interchange, client, kind, folder=disk.folder)
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        assert executor.submit(double, 1).result(WAIT) == 2
        disk.fill()
        names = [f"task-{number}" for number in range(50)]
        futures = [executor.submit(leave_mark, str(tmp_path), name, 0.01) for name in names]
        assert [future.result(WAIT) for future in futures] == names
        assert len(list(tmp_path.iterdir())) == 50
        assert "the journal can not be written" in endpoint.process.log.read_text()
        wait_for(lambda: "No space left" in str(endpoint.status()["last_error"]), "the status to say so", WAIT)
        disk.make_room()
        assert executor.submit(double, 2).result(WAIT) == 4
        endpoint.kill()
        endpoint.start(wait=False)
        assert executor.submit(double, 3).result(WAIT) == 6


def test_a_user_endpoint_that_can_not_be_noted_starts_when_there_is_room(make_endpoint, interchange, client, disk):
    """Its start command is not acknowledged before it is saved, so it comes again."""
    from globus_compute_sdk import Executor

    endpoint = make_endpoint(interchange, client, "template", folder=disk.folder)
    disk.fill()
    with Executor(endpoint_id=endpoint.id, api_burst_limit=8, api_burst_window_s=1) as executor:
        future = executor.submit(double, 2)
        wait_for(lambda: "No space left" in str(endpoint.status()["last_error"]), "the status to say so", WAIT)
        assert not endpoint.status()["user_endpoints"] and not future.done()
        disk.make_room()
        # Sooner than the interchange sends start commands again to user endpoints that are silent.
        assert future.result(45) == 4


def test_commands_to_a_user_endpoint_that_can_not_be_noted_do_not_keep_others_away(
    make_endpoint, interchange, client, disk
):
    """Each submit brings a command with fresh credentials; of those that are neither acknowledged nor given back, RabbitMQ
    bears sixteen."""
    from globus_compute_sdk import Executor

    endpoint = make_endpoint(interchange, client, "template", folder=disk.folder)
    limits = {"api_burst_limit": 32, "api_burst_window_s": 1}
    with Executor(endpoint_id=endpoint.id, **limits) as executor:
        assert executor.submit(double, 0).result(WAIT) == 0
        disk.fill()
        for number in range(20):
            assert executor.submit(double, number).result(WAIT) == 2 * number
        disk.make_room()
    with Executor(endpoint_id=endpoint.id, user_endpoint_config={"slots": 1}, **limits) as other:
        assert other.submit(double, 2).result(WAIT) == 4
