"""A template endpoint makes a user endpoint for each configuration, and keeps them apart."""

from __future__ import annotations

import pytest
from harness.endpoint import wait_for
from harness.functions import double, environment, where

WAIT = 60


def test_two_configurations_make_two_user_endpoints_that_share_no_worker(make_executor, endpoints):
    endpoint = endpoints("template")
    first = make_executor(endpoint, user_endpoint_config={"worker_init": "export COLOUR=red", "slots": 1})
    second = make_executor(endpoint, user_endpoint_config={"worker_init": "export COLOUR=blue", "slots": 1})
    colours = [executor.submit(environment, "COLOUR") for executor in (first, second)]
    places = [executor.submit(where) for executor in (first, second)]
    assert [future.result(WAIT) for future in colours] == ["red", "blue"]
    pids = {future.result(WAIT)["pid"] for future in places}
    assert len(pids) == 2
    running = {entry["id"] for entry in endpoint.status()["user_endpoints"]}
    assert len(running) >= 2


def test_a_configuration_that_the_schema_refuses_fails_the_future_and_says_why(make_executor, endpoints):
    executor = make_executor(endpoints("template"), user_endpoint_config={"slots": "many"})
    with pytest.raises(Exception, match=r"many|slots|integer"):
        executor.submit(double, 1).result(WAIT)


def test_an_idle_user_endpoint_ends_and_starts_again_with_the_next_task(
    make_executor, make_endpoint, interchange, client
):
    endpoint = make_endpoint(interchange, client, "template")
    options = {"idle_heartbeats_soft": 1, "heartbeat_period": 5}
    executor = make_executor(endpoint, user_endpoint_config=options)
    assert executor.submit(double, 1).result(WAIT) == 2
    wait_for(lambda: not endpoint.status()["user_endpoints"], "the idle user endpoint to end", WAIT)
    wait_for(
        lambda: not [
            p for p in endpoint.keeper.descendants() if "--block" in p.command and str(endpoint.folder) in p.command
        ],
        "its blocks to end",
        WAIT,
    )
    assert executor.submit(double, 2).result(WAIT) == 4


def test_unmatched_options_of_a_direct_endpoint_do_not_hold_up_its_tasks(make_executor, endpoints):
    assert make_executor(endpoints("direct")).submit(double, 3).result(WAIT) == 6
