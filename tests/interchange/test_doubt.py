"""Tasks that the broker has and has not confirmed: in doubt while the channel that carried them is open."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from interchange.calls import Api, connect, eventually, metric
from interchange.proxy import ConfirmProxy

CLAIM_AND_SWEEP = 17.0
"""Seconds after which another process, or this one's sweep, would take over what a dead process had claimed."""


@pytest.fixture
def proxy(broker):
    proxy = ConfirmProxy(broker.port)
    yield proxy
    proxy.close()


@pytest.fixture
def doubtful(make_interchange, broker, virtual_host, proxy):
    """An interchange that reaches its broker by the proxy, while its clients reach it directly."""
    host = virtual_host()
    url = broker.url(host)
    environment = {
        "WAYPOST_INTERCHANGE_BROKER_URL": url.replace(f":{broker.port}/", f":{proxy.port}/"),
        "WAYPOST_INTERCHANGE_BROKER_PUBLIC_URL": url,
    }
    return make_interchange(virtual_host=host, environment=environment)


@pytest.fixture
def count(doubtful):
    """How many messages a queue holds now."""
    connection = connect(doubtful.broker.url(doubtful.virtual_host))
    channel = connection.channel()
    yield lambda queue: channel.queue_declare(queue, passive=True).method.message_count
    with contextlib.suppress(Exception):
        connection.close()


def test_tasks_are_published_again_only_after_the_channel_that_carried_them_is_closed(doubtful, proxy, count):
    api = Api(doubtful, doubtful.create_client("doubtful"))
    registration, function = api.endpoint(), api.function()
    endpoint, queue = registration["endpoint_id"], registration["task_queue_info"]["queue"]

    proxy.hold()
    start = time.monotonic()
    submitted = api.submit(endpoint, function, 3)
    assert count(queue) == 3 and proxy.held > 0, "the broker has them, and its confirms are held"
    tasks = submitted["tasks"][function]
    while time.monotonic() < start + CLAIM_AND_SWEEP:
        assert count(queue) == 3, "published twice while the first channel was open"
        time.sleep(0.5)
    assert metric(doubtful, "outbox_tasks") == 3 and metric(doubtful, "outbox_recovered_total") == 0
    assert {api.done("GET", f"/v2/tasks/{task}")["status"] for task in tasks} == {"received"}
    proxy.release()
    eventually(lambda: metric(doubtful, "outbox_tasks") == 0, "the late confirms are taken")
    assert {api.done("GET", f"/v2/tasks/{task}")["status"] for task in tasks} == {"waiting-for-ep"}
    assert count(queue) == 3

    proxy.hold()
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(api.submit, endpoint, function, 3)
        eventually(lambda: count(queue) == 6, "the broker has them")
        proxy.cut()
        submitting.result(30)
    eventually(lambda: metric(doubtful, "outbox_tasks") == 0, "they are published by the next channel", 30)
    assert metric(doubtful, "outbox_recovered_total") == 3
    assert count(queue) == 9, "nobody could know that the broker had them"


def test_a_client_that_hangs_up_ends_no_publish(doubtful, proxy, count):
    """The call's end must not drop the confirms that are still to come: the tasks would be published twice."""
    api = Api(doubtful, doubtful.create_client("impatient"))
    registration, function = api.endpoint(), api.function()
    endpoint, queue = registration["endpoint_id"], registration["task_queue_info"]["queue"]
    proxy.hold()
    with pytest.raises(OSError, match="timed out"):
        api.call("POST", f"/v3/endpoints/{endpoint}/submit", {"tasks": {function: ["4\n00\n1\n"]}}, timeout=2)
    eventually(lambda: proxy.held > 0 and count(queue) == 1, "the broker has it")
    proxy.release()
    eventually(lambda: metric(doubtful, "outbox_tasks") == 0, "the late confirm is taken", 5)
    assert metric(doubtful, "outbox_recovered_total") == 0 and count(queue) == 1
