"""The interchange dies, or its broker does: what was accepted is run, and every result arrives."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path

import pytest
from harness import checkout, http
from harness.interchange import Interchange
from harness.postgresql import PostgreSQL
from harness.rabbitmq import RabbitMQ
from interchange.calls import Api, Speaker, eventually, metric, result_body
from interchange.traffic import Results, Worker, submit_through


def run_through_faults(api, fault, number=200):
    """Submits tasks one by one while `fault` strikes; checks that each gets its own result."""
    registration, function = api.endpoint(), api.function()
    worker = Worker(registration)
    first, group = submit_through(api, registration["endpoint_id"], function, None, "0")
    url = api.done("GET", "/v2/get_amqp_result_connection_url")
    results = Results(url["connection_url"], url["queue_prefix"] + group)
    expected = {first: "0"}
    done = threading.Event()

    def strike():
        while not done.is_set():
            fault()

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        for count in range(1, number):
            task, _ = submit_through(api, registration["endpoint_id"], function, group, str(count))
            expected[task] = str(count)
    finally:
        done.set()
        striking.join(60)
    assert len(expected) == number
    eventually(lambda: expected.keys() <= results.got.keys(), "every result arrived", 60)
    worker.stop()
    results.stop()
    assert {task: results.got[task] for task in expected} == expected
    answer = {}
    for start in range(0, number, 100):
        ids = list(expected)[start : start + 100]
        answer |= api.done("POST", "/v2/batch_status", {"task_ids": ids})["results"]
    assert {task: answer[task]["result"] for task in expected} == expected
    return expected, results


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kills_at_random_moments_lose_no_task_and_no_result(make_interchange, request, kind, seed):
    options = {"database": request.getfixturevalue("database")()} if kind == "postgresql" else {}
    interchange = make_interchange(**options)
    api = Api(interchange, interchange.create_client("killed"))
    dice = random.Random(seed)
    kills = 0

    def fault():
        nonlocal kills
        time.sleep(dice.uniform(0.02, 0.5))
        interchange.kill()
        interchange.start()
        kills += 1

    print(f"seed {seed}")
    run_through_faults(api, fault)
    assert kills >= 2
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty", 30)


def refuse_tasks(broker, host, registration):
    """The broker refuses messages for task queues, if they are classic: the confirms are refusals, and tasks stay in the
    outbox."""
    policy = {"pattern": "tasks$", "definition": {"max-length": 0, "overflow": "reject-publish"}, "apply-to": "queues"}
    broker.api("PUT", f"/api/policies/{host}/refuse", policy)
    name = registration["task_queue_info"]["queue"]
    eventually(lambda: broker.queues(host)[name].get("policy") == "refuse", "the policy holds", 30)


def test_a_task_that_was_accepted_and_not_published_is_published_at_the_next_start(make_interchange):
    interchange = make_interchange()
    broker, host = interchange.broker, interchange.virtual_host
    api = Api(interchange, interchange.create_client("stuck"))
    registration, function = api.endpoint(), api.function()
    refuse_tasks(broker, host, registration)
    submitted = api.submit(registration["endpoint_id"], function, 3)
    assert metric(interchange, "outbox_tasks") == 3
    assert api.done("GET", f"/v2/tasks/{submitted['tasks'][function][0]}")["status"] == "received"
    interchange.kill()
    broker.api("DELETE", f"/api/policies/{host}/refuse")
    time.sleep(1)
    interchange.start()
    speaker = Speaker(registration)
    got = {properties.headers["task_uuid"] for properties, _ in speaker.tasks(3)}
    speaker.close()
    assert got == set(submitted["tasks"][function])
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty")


@pytest.fixture(scope="module")
def ill_used(keeper):
    """A broker for tests that others would not like to share one with."""
    root = os.environ.get("WAYPOST_TEST_BROKER_ROOT")
    broker = RabbitMQ(keeper, name="ill-used", root=Path(root) if root else None).start()
    yield broker
    broker.end()


def readiness(interchange):
    """The answer of /readyz."""
    status, text = http.call("GET", f"{interchange.url}/readyz")
    return status, json.loads(text)


def test_who_has_lost_its_database_says_so_and_is_ready_when_it_is_back(make_interchange, keeper):
    database = PostgreSQL(keeper, name="stopped").start()
    interchange = make_interchange(database=database.create_database("away"))
    api = Api(interchange, interchange.create_client("away"))
    assert readiness(interchange) == (200, {"broker": True, "database": True})
    database.stop()
    eventually(lambda: readiness(interchange) == (503, {"broker": True, "database": False}), "not ready", 30)
    assert http.call("GET", f"{interchange.url}/livez")[0] == 200
    status, answer = api.call("GET", "/v2/endpoints", timeout=60)
    assert (status, answer["code"]) == (503, "SERVICE_UNAVAILABLE"), answer
    database.start()
    eventually(lambda: readiness(interchange)[0] == 200, "ready again", 30)
    api.done("GET", "/v2/endpoints")
    interchange.stop()
    database.stop()


def test_a_restart_of_the_broker_loses_no_task_and_no_result(keeper, ill_used):
    broker = ill_used
    broker.create_virtual_host("restarted")
    program = checkout.binary("interchange")
    interchange = Interchange(keeper, program, broker, name="with-restarted", virtual_host="restarted").start()
    api = Api(interchange, interchange.create_client("restarting"))
    strikes = 0

    def fault():
        nonlocal strikes
        time.sleep(0.3)
        if strikes < 2:
            (broker.kill if strikes else broker.stop)()
            time.sleep(0.5)
            broker.start()
            strikes += 1

    try:
        run_through_faults(api, fault, 300)
        assert strikes == 2
    finally:
        interchange.stop()


def test_a_broker_that_lost_everything_is_made_ready_again(keeper, ill_used):
    """Its disk is gone: users, queues and bindings are made again from the store, and tasks that waited in it."""
    broker = ill_used
    interchange = Interchange(keeper, checkout.binary("interchange"), broker, name="with-emptied").start()
    try:
        api = Api(interchange, interchange.create_client("emptied"))
        registration, function = api.endpoint(), api.function()
        waiting = api.submit(registration["endpoint_id"], function, 3)
        waited = waiting["tasks"][function]
        speaker = Speaker(registration)
        speaker.tasks(3)
        speaker.publish("result", result_body(waited[0]))
        eventually(lambda: api.done("GET", f"/v2/tasks/{waited[0]}")["status"] == "success", "the result", 30)
        speaker.close()
        broker.kill()
        broker.forget()
        eventually(lambda: readiness(interchange) == (503, {"broker": False, "database": True}), "not ready", 60)
        assert http.call("GET", f"{interchange.url}/livez")[0] == 200
        broker.start()
        eventually(lambda: metric(interchange, "broker_connected") == 1, "connected", 30)
        submitted = api.submit(registration["endpoint_id"], function)
        speaker = Speaker(registration)
        got = [properties.headers["task_uuid"] for properties, _ in speaker.tasks(3)]
        assert sorted(got) == sorted([*waited[1:], *submitted["tasks"][function]])
        for task, group in ((waited[1], waiting), (submitted["tasks"][function][0], submitted)):
            speaker.publish("result", result_body(task))
            connection, queue = api.result_queue(group["task_group_id"])
            (method, _, body) = next(connection.channel().consume(queue, inactivity_timeout=20))
            assert method is not None and task in body.decode()
            connection.close()
        speaker.close()
    finally:
        interchange.stop()


def test_a_task_that_the_broker_does_not_take_gets_an_error_and_is_in_nobodys_way(keeper):
    broker = RabbitMQ(keeper, name="narrow", settings="max_message_size = 100000").start()
    interchange = Interchange(keeper, checkout.binary("interchange"), broker, name="with-narrow").start()
    try:
        api = Api(interchange, interchange.create_client("narrow"))
        registration, function = api.endpoint(), api.function()
        tasks = {function: ["small", "x" * 200000, "small", "x" * 300000]}
        submitted = api.submit(registration["endpoint_id"], function, tasks=tasks)["tasks"][function]
        speaker = Speaker(registration)
        missing = {submitted[0], submitted[2]}
        while missing:
            # What was published when the channel closed comes a second time.
            missing -= {properties.headers["task_uuid"] for properties, _ in speaker.tasks(1)}
        for task in (submitted[1], submitted[3]):

            def refused(task=task):
                answer = api.done("GET", f"/v2/tasks/{task}")
                return answer["status"] == "failed" and "max_message_size" in answer["exception"]

            eventually(refused, "the error", 30)
        (later,) = api.submit(registration["endpoint_id"], function)["tasks"][function]
        while later not in {properties.headers["task_uuid"] for properties, _ in speaker.tasks(1)}:
            pass
        speaker.close()
        eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty", 30)
    finally:
        interchange.stop()
        broker.end()


@pytest.mark.parametrize("noticed", ["by another task", "at the next registration", "after a while"])
def test_tasks_of_a_queue_that_somebody_removed_are_published_again(make_interchange, noticed):
    interchange = make_interchange()
    broker, host = interchange.broker, interchange.virtual_host
    api = Api(interchange, interchange.create_client("removed"))
    registration, function = api.endpoint(), api.function()
    tasks = api.submit(registration["endpoint_id"], function, 3)["tasks"][function]
    queue = registration["task_queue_info"]["queue"]
    broker.api("DELETE", f"/api/queues/{host}/{queue}")
    if noticed == "by another task":
        tasks += api.submit(registration["endpoint_id"], function)["tasks"][function]
    elif noticed == "at the next registration":
        api.done(
            "PUT", f"/v3/endpoints/{registration['endpoint_id']}", {"endpoint_name": "e", "metadata": {"config": {}}}
        )
    eventually(lambda: queue in broker.queues(host), "the queue is there", 60)
    speaker = Speaker(registration)
    got = [properties.headers["task_uuid"] for properties, _ in speaker.tasks(len(tasks))]
    assert sorted(got) == sorted(tasks)
    speaker.close()
    eventually(lambda: metric(interchange, "outbox_tasks") == 0, "the outbox is empty", 30)


def test_two_replicas_are_one_service(make_interchange, database, virtual_host, tmp_path):
    """Submits alternate between two replicas, and each is killed in turn."""
    shared = {"database": database(), "virtual_host": virtual_host()}
    key = {"WAYPOST_INTERCHANGE_KEY_FILE": str(tmp_path / "key")}
    replicas = [make_interchange(environment=key, **shared) for _ in range(2)]
    client = replicas[0].create_client("replicated")
    apis = [Api(replica, client) for replica in replicas]
    assert apis[0].tokens != apis[1].tokens
    apis[1].tokens = apis[0].tokens
    urls = [api.done("GET", "/v2/get_amqp_result_connection_url") for api in apis]
    assert urls[0] == urls[1]

    class Alternating:
        """One client that calls the replicas in turn."""

        def __init__(self):
            self.turn = 0

        def __getattr__(self, name):
            self.turn += 1
            return getattr(apis[self.turn % 2], name)

        def call(self, method, path, body=None, **options):
            self.turn += 1
            return apis[self.turn % 2].call(method, path, body, **options)

        def done(self, method, path, body=None, **options):
            for attempt in range(50):
                try:
                    return apis[(self.turn + attempt) % 2].done(method, path, body, **options)
                except OSError:
                    time.sleep(0.1)
            raise AssertionError("no replica answers")

    dice = random.Random(7)
    kills = 0

    def fault():
        nonlocal kills
        time.sleep(dice.uniform(0.05, 0.5))
        replicas[kills % 2].kill()
        time.sleep(dice.uniform(0.0, 0.3))
        replicas[kills % 2].start()
        kills += 1

    run_through_faults(Alternating(), fault)
    assert kills >= 2


def test_the_other_replica_publishes_what_a_dead_one_accepted(make_interchange, database, virtual_host, tmp_path):
    shared = {"database": database(), "virtual_host": virtual_host()}
    key = {"WAYPOST_INTERCHANGE_KEY_FILE": str(tmp_path / "key")}
    first, second = [make_interchange(environment=key, **shared) for _ in range(2)]
    api = Api(first, first.create_client("inherited"))
    registration, function = api.endpoint(), api.function()
    refuse_tasks(first.broker, shared["virtual_host"], registration)
    submitted = api.submit(registration["endpoint_id"], function, 3)
    assert metric(first, "outbox_tasks") == 3
    first.kill()
    first.broker.api("DELETE", f"/api/policies/{shared['virtual_host']}/refuse")
    speaker = Speaker(registration)
    got = {properties.headers["task_uuid"] for properties, _ in speaker.tasks(3, seconds=40)}
    speaker.close()
    assert got == set(submitted["tasks"][function])
    eventually(lambda: metric(second, "outbox_tasks") == 0, "the outbox is empty", 30)


def test_large_results_are_held_a_few_at_a_time(make_interchange, speak):
    """690 MB of results wait for an interchange that was away."""
    interchange = make_interchange()
    api = Api(interchange, interchange.create_client("large"))
    registration, function = api.endpoint(), api.function()
    speaker = speak(registration)
    submitted = api.submit(speaker.id, function, 70, create_queue=False)
    speaker.tasks(70)
    interchange.kill()
    large = "00\n" + "x" * 9_900_000
    for task in submitted["tasks"][function]:
        speaker.publish("result", result_body(task, large))
    interchange.start()
    last = submitted["tasks"][function][-1]
    eventually(lambda: api.done("GET", f"/v2/tasks/{last}")["status"] == "success", "all are stored", 120)
    status = Path(f"/proc/{interchange.process.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
    print(f"peak of resident memory: {peak} MiB")
    assert peak < 600
