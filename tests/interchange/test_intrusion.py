"""What an endpoint or client can not do with its own broker user, and what is dropped of what it can do."""

from __future__ import annotations

import contextlib
import uuid

import pika
import pytest
from interchange.calls import connect, eventually, heartbeat_body, metric, result_body


@pytest.fixture
def victim(alice, speak):
    """An endpoint of Alice's with a task on its queue."""
    registration, function = alice.endpoint(), alice.function()
    submitted = alice.submit(registration["endpoint_id"], function)
    speaker = speak(registration)
    speaker.task = submitted["tasks"][function][0]
    speaker.group = submitted["task_group_id"]
    path = f"/v2/tasks/{speaker.task}"
    eventually(lambda: alice.done("GET", path)["status"] == "waiting-for-ep", "the broker's confirm is noted")
    return speaker


@pytest.fixture(params=["direct", "template", "user endpoint", "client"])
def intruder(request, bob, speak):
    """A connection of Bob's to the broker, by each kind of user that he can have."""
    import json

    if request.param == "client":
        connection, _ = bob.result_queue("x")
        yield connection
        connection.close()
        return
    if request.param == "user endpoint":
        registration = bob.endpoint("template")
        bob.submit(registration["endpoint_id"], bob.function())
        ((_, body),) = speak(registration).tasks(1)
        registration = json.loads(body)["kwargs"]["amqp_creds"]
    else:
        registration = bob.endpoint(request.param)
    yield speak(registration).connection


@contextlib.contextmanager
def refused(connection):
    """A channel, on which something must be refused by the broker for want of permission."""
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        yield channel
    assert error.value.reply_code == 403, error.value


def exchanges(broker, virtual_host):
    from urllib.parse import quote

    return [exchange["name"] for exchange in broker.api("GET", f"/api/exchanges/{quote(virtual_host, safe='')}")]


def test_another_endpoints_queues_can_not_be_read(intruder, victim, alice):
    _, results = alice.result_queue(victim.group)
    for queue in (victim.queue, "results", "heartbeats", results):
        with refused(intruder) as channel:
            channel.basic_get(queue)
        with refused(intruder) as channel:
            channel.basic_consume(queue, lambda *_: None)
    assert len(victim.tasks(1)) == 1, "its task is still there"


def test_another_endpoints_commands_can_not_be_read(intruder, alice, speak):
    registration = alice.endpoint("template")
    alice.submit(registration["endpoint_id"], alice.function())
    with refused(intruder) as channel:
        channel.basic_get(f"{registration['endpoint_id']}.commands")
    assert len(speak(registration).tasks(1)) == 1


def test_nothing_can_be_published_under_anothers_key_on_any_exchange(intruder, victim, alice, broker, interchange):
    """Whatever the exchange: the topic exchanges of the service, the broker's own, and the default one, by which every
    queue can be reached."""
    _, results = alice.result_queue(victim.group)
    names = exchanges(broker, interchange.virtual_host)
    assert {"", "results", "heartbeats", "amq.topic"} <= set(names)
    keys = [f"{victim.id}.results", f"{victim.id}.heartbeats", f"{victim.id}.tasks", victim.queue, results, "results"]
    for exchange in names:
        for key in keys:
            with refused(intruder) as channel:
                channel.basic_publish(exchange, key, result_body(victim.task))
    answer = alice.done("GET", f"/v2/tasks/{victim.task}")
    assert answer["status"] == "waiting-for-ep"


def test_nothing_can_be_declared_bound_purged_or_deleted(intruder, victim):
    attempts = [
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_declare(""),
        lambda channel: channel.exchange_declare("mine", "topic"),
        lambda channel: channel.queue_bind(victim.queue, "results", "#"),
        lambda channel: channel.queue_purge(victim.queue),
        lambda channel: channel.queue_delete(victim.queue),
        lambda channel: channel.exchange_delete("results"),
        lambda channel: channel.exchange_bind("amq.topic", "results", "#"),
    ]
    for attempt in attempts:
        with refused(intruder) as channel:
            attempt(channel)


def test_every_user_has_no_more_than_its_own_names(interchange, alice, bob, victim, broker):
    """Every user that the interchange has made: nothing to configure, and a topic permission on every topic exchange
    that it may write to."""
    from urllib.parse import quote

    alice.result_queue("x")[0].close()
    host = quote(interchange.virtual_host, safe="")
    permissions = broker.api("GET", f"/api/vhosts/{host}/permissions")
    topics = broker.api("GET", f"/api/vhosts/{host}/topic-permissions")
    ours = [entry for entry in permissions if entry["user"].startswith("waypost.")]
    assert len(ours) >= 3
    for entry in ours:
        name = entry["user"].rsplit(".", 1)[1]
        assert entry["configure"] == "^$"
        assert name in entry["read"], "it reads its own only"
        assert entry["write"] in ("^$", "^heartbeats$", "^(results|heartbeats)$")
        limited = {topic["exchange"]: topic["write"] for topic in topics if topic["user"] == entry["user"]}
        assert set(limited) == {"results", "heartbeats"}
        assert all(pattern == "^$" or pattern.startswith(f"^{name}") for pattern in limited.values())
    tagged = [user for user in broker.api("GET", "/api/users") if user["name"].startswith("waypost.") and user["tags"]]
    assert tagged == []


def test_a_result_of_another_endpoints_task_is_dropped_and_counted(interchange, alice, bob, victim, speak):
    thief = speak(bob.endpoint())
    before = metric(interchange, "results_dropped_total", reason="foreign_task")
    thief.publish("result", result_body(victim.task, "00\nforged\n"))
    eventually(
        lambda: metric(interchange, "results_dropped_total", reason="foreign_task") == before + 1, "it is counted"
    )
    assert alice.done("GET", f"/v2/tasks/{victim.task}")["status"] == "waiting-for-ep"
    victim.publish("result", result_body(victim.task, "00\ngenuine\n"))
    answer = eventually(lambda: (a := alice.done("GET", f"/v2/tasks/{victim.task}")).get("result") and a, "result")
    assert answer["result"] == "00\ngenuine\n"


def test_a_heartbeat_for_another_endpoint_is_dropped_and_counted(interchange, alice, bob, victim, speak):
    liar = speak(bob.endpoint())
    before = metric(interchange, "heartbeats_dropped_total", reason="foreign_endpoint")
    liar.publish("heartbeat", heartbeat_body(victim.id))
    eventually(
        lambda: metric(interchange, "heartbeats_dropped_total", reason="foreign_endpoint") == before + 1,
        "it is counted",
    )
    assert alice.done("GET", f"/v2/endpoints/{victim.id}/status")["status"] == "offline"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda: b"", "malformed"),
        (lambda: b"\x02{}", "malformed"),
        (lambda: b"\x01not json", "malformed"),
        (lambda: heartbeat_body(str(uuid.uuid4())), "malformed"),
        (lambda: result_body("not-a-uuid"), "malformed"),
        (lambda: result_body(str(uuid.uuid4())), "unknown_task"),
    ],
)
def test_what_is_no_result_of_a_task_is_dropped_and_counted(interchange, bob, speak, body, reason):
    speaker = speak(bob.endpoint())
    before = metric(interchange, "results_dropped_total", reason=reason)
    speaker.publish("result", body())
    eventually(lambda: metric(interchange, "results_dropped_total", reason=reason) == before + 1, "it is counted")


def test_a_second_result_is_dropped_and_counted(interchange, alice, victim):
    before = metric(interchange, "results_dropped_total", reason="duplicate")
    for data in ("00\nfirst\n", "00\nsecond\n"):
        victim.publish("result", result_body(victim.task, data))
    eventually(lambda: metric(interchange, "results_dropped_total", reason="duplicate") == before + 1, "it is counted")
    assert alice.done("GET", f"/v2/tasks/{victim.task}")["result"] == "00\nfirst\n"
    connection, queue = alice.result_queue(victim.group)
    assert connection.channel().queue_declare(queue, passive=True).method.message_count == 1
    connection.close()


def test_a_client_reads_its_own_results_only(alice, bob, victim):
    connection, _ = bob.result_queue("x")
    url = alice.done("GET", "/v2/get_amqp_result_connection_url")
    with refused(connection) as channel:
        channel.basic_get(url["queue_prefix"] + victim.group)
    connection.close()
    connection = connect(url["connection_url"])
    assert connection.channel().basic_get(url["queue_prefix"] + victim.group) == (None, None, None)
    connection.close()


def test_no_secret_is_logged(interchange, alice, bob):
    """After all of the above, at the level of debugging."""
    from urllib.parse import urlsplit

    log = interchange.process.log.read_text(errors="replace")
    assert "endpoint registered" in log
    secrets = [alice.client.secret, bob.client.secret, *alice.tokens.values(), interchange.broker.password]
    secrets.append(urlsplit(alice.done("GET", "/v2/get_amqp_result_connection_url")["connection_url"]).password)
    secrets.append(urlsplit(alice.endpoint()["task_queue_info"]["connection_url"]).password)
    secrets.append((interchange.folder / "interchange.key").read_text())
    for secret in secrets:
        assert len(secret) > 20 and secret not in log
