"""A database of the version before is taken over with all that is in it, by replicas that start at the same time.

With WAYPOST_TEST_INTERCHANGE_BEFORE, the path of an earlier release's program, also: that one serves on beside this one.
"""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest
from harness import checkout
from harness.interchange import Interchange
from interchange.calls import Api, eventually, result_body, sql
from interchange.traffic import Results, Worker, submit_through

BEFORE = os.environ.get("WAYPOST_TEST_INTERCHANGE_BEFORE")

BACK_TO_THE_THIRD_VERSION = (
    "DROP TABLE users, sign_in_clients, refresh_tokens, authorization_codes, sign_in_attempts, signing_keys",
    "ALTER TABLE tokens DROP COLUMN issued_to, DROP COLUMN scope, DROP COLUMN grant_id",
    "DELETE FROM _sqlx_migrations WHERE version = 4",
)
"""What the fourth migration brought is taken away again. Data of an earlier version can only be had from an interchange
that works, and this is the one that there is."""


@pytest.fixture
def make_replica(keeper, broker, database, virtual_host, tmp_path):
    """Makes a replica that is not started yet; all share their database, key and virtual host."""
    numbers = itertools.count(1)
    shared = {"database": database(), "virtual_host": virtual_host()}
    key = {"WAYPOST_INTERCHANGE_KEY_FILE": str(tmp_path / "key")}
    made = []

    def make(binary=None):
        name = f"replica-{next(numbers)}"
        program = Path(binary or checkout.binary("interchange"))
        made.append(Interchange(keeper, program, broker, name=name, environment=key, **shared))
        return made[-1]

    yield make
    for replica in made:
        if replica.process is not None and replica.process.running:
            replica.stop()


def test_replicas_that_start_together_take_over_a_database_with_tasks_in_flight(make_replica, speak):
    before = make_replica().start()
    api = Api(before, before.create_client("of the version before"))
    function, registration = api.function(), api.endpoint()
    submitted = api.submit(registration["endpoint_id"], function, 5)
    tasks = submitted["tasks"][function]
    connection, queue = api.result_queue(submitted["task_group_id"])
    connection.close()
    before.stop()
    sql(before, *BACK_TO_THE_THIRD_VERSION)

    replicas = [make_replica() for _ in range(3)]
    for replica in replicas:
        replica.start(wait=False)
    for replica in replicas:
        replica.wait_ready()
    assert sql(replicas[0], "SELECT string_agg(version::text, ',' ORDER BY version) FROM _sqlx_migrations") == [
        "1,2,3,4"
    ]

    # The client's tokens of before are still good, at each of them, and so is all that it owns.
    for replica in replicas:
        api.interchange = replica
        assert api.done("GET", f"/v2/functions/{function}")["function_uuid"] == function
    assert set(api.done("POST", "/v2/batch_status", {"task_ids": tasks})["results"]) == set(tasks)

    # The endpoint comes back with what it was told then, and does what waits for it.
    endpoint = speak(registration)
    taken = [properties.headers["task_uuid"] for properties, _ in endpoint.tasks(5)]
    assert sorted(taken) == sorted(tasks)
    url = api.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"]
    results = Results(url, queue)
    for task in taken:
        endpoint.publish("result", result_body(task, f"result of {task}"))
    eventually(lambda: set(tasks) <= results.got.keys(), "every result to arrive")
    results.stop()
    assert results.got == {task: f"result of {task}" for task in tasks}

    # What the new version brought is there as well.
    user = replicas[1].create_user("ada", "correct horse battery")
    assert user.id in replicas[2].command("user", "list", "--json")
    assert api.done("POST", "/v3/functions", {"function_name": "g", "function_code": "4\n01\nd"})


if BEFORE:

    def test_the_version_before_serves_on_while_this_one_takes_over(make_replica):
        old, new = make_replica(BEFORE).start(), make_replica()
        client = old.create_client("of both")
        api = Api(old, client)
        registration, function = api.endpoint(), api.function()
        worker = Worker(registration)
        first, group = submit_through(api, registration["endpoint_id"], function, None, "0")
        url = api.done("GET", "/v2/get_amqp_result_connection_url")
        results = Results(url["connection_url"], url["queue_prefix"] + group)
        expected, went_wrong = {first: "0"}, []

        def submit(through, numbers):
            try:
                for number in numbers:
                    task, _ = submit_through(through, registration["endpoint_id"], function, group, str(number))
                    expected[task] = str(number)
            except BaseException as error:
                went_wrong.append(error)
                raise

        # All the time, while the new one migrates and serves beside it.
        load = threading.Thread(target=submit, args=(api, range(1, 400)))
        load.start()
        new.start()
        submit(Api(new, client), range(1000, 1200))
        load.join(120)
        assert not load.is_alive() and not went_wrong
        new.create_user("ada", "correct horse battery")
        # The old one, too, goes on with new clients, functions and endpoints.
        late = Api(old, old.create_client("late"))
        assert late.function() and late.endpoint()
        old.stop()
        submit(Api(new, client), range(2000, 2020))
        eventually(lambda: expected.keys() <= results.got.keys(), "every result to arrive", 60)
        worker.stop()
        results.stop()
        assert results.got == expected
