"""What docs/operations.md says of an interchange's backup: the database and the key are enough to go on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import checkout
from harness.interchange import Interchange
from harness.postgresql import programs
from interchange.calls import Api, eventually, metric, result_body, sql
from interchange.traffic import Results


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request, make_interchange, virtual_host, tmp_path):
    """An interchange, what backs its database up while it runs, and what starts another one with that backup."""
    keeper, broker = request.getfixturevalue("keeper"), request.getfixturevalue("broker")
    options = {"virtual_host": virtual_host(), "environment": {"WAYPOST_INTERCHANGE_KEY_FILE": str(tmp_path / "key")}}
    folder = tmp_path / "restored"
    folder.mkdir()
    copy = folder / "interchange.db"
    if request.param == "sqlite":
        first = make_interchange(**options)

        def back_up():
            source = first.folder / "interchange.db"
            code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))"
            # What `sqlite3 interchange.db ".backup copy.db"` does.
            subprocess.run([sys.executable, "-c", code, source, copy], check=True, timeout=60)

        restored = None
    else:
        database = request.getfixturevalue("database")
        first, restored = make_interchange(database=database(), **options), database()

        def back_up():
            subprocess.run([programs() / "pg_dump", first.database, "--file", copy], check=True, timeout=60)

    made = []

    def restore():
        if request.param == "postgresql":
            command = [programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--dbname", restored, "--file", copy]
            subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
        binary = checkout.binary("interchange")
        made.append(Interchange(keeper, binary, broker, "restored", folder, database=restored, **options))
        return made[-1].start()

    yield first, back_up, restore
    for interchange in made:
        interchange.stop()


def test_what_was_there_at_the_backup_goes_on_and_what_came_after_is_dropped_and_counted(kept, speak):
    first, back_up, restore = kept
    api = Api(first, first.create_client("kept"))
    ada = first.create_user("ada", "correct horse battery")
    function, registration = api.function(), api.endpoint()
    before = api.submit(registration["endpoint_id"], function, 3)
    tasks = before["tasks"][function]
    back_up()
    after = api.submit(registration["endpoint_id"], function, 2, task_group_id=before["task_group_id"])
    lost = after["tasks"][function]
    first.kill()

    api.interchange = second = restore()
    # Tokens and functions are there; the users of the broker have their passwords, for the key is the same.
    assert api.done("GET", f"/v2/functions/{function}")["function_uuid"] == function
    assert ada.id in second.command("user", "list", "--json")
    connection, queue = api.result_queue(before["task_group_id"])
    url = api.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"]
    connection.close()
    endpoint = speak(registration)
    # What was on its way is still in the broker's queues.
    taken = [properties.headers["task_uuid"] for properties, _ in endpoint.tasks(5)]
    assert sorted(taken) == sorted(tasks + lost)
    results = Results(url, queue)
    for task in taken:
        endpoint.publish("result", result_body(task, f"result of {task}"))
    eventually(lambda: set(tasks) <= results.got.keys(), "the results of what was there to arrive")
    eventually(lambda: metric(second, "results_dropped_total", reason="unknown_task") == 2, "the others to be counted")
    results.stop()
    assert results.got == {task: f"result of {task}" for task in tasks}
    assert sql(second, "SELECT count(*) FROM tasks") == ["3"]
