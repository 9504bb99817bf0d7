"""What is no longer needed goes away."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from interchange.calls import Api, eventually, heartbeat_body, metric, result_body

SOON = {
    "WAYPOST_INTERCHANGE_HOUSEKEEPING_PERIOD": "1",
    "WAYPOST_INTERCHANGE_IDLE_QUEUE_LIFE": "2",
}


@pytest.fixture(scope="module")
def tidy(make_interchange):
    """An interchange that cleans up soon."""
    return make_interchange(environment=SOON)


@pytest.fixture(scope="module")
def carol(tidy):
    return Api(tidy, tidy.create_client("carol"))


def state_of_broker(interchange):
    from urllib.parse import quote

    host = quote(interchange.virtual_host, safe="")
    broker = interchange.broker
    users = {entry["user"] for entry in broker.api("GET", f"/api/vhosts/{host}/permissions")}
    bindings = [
        (binding["source"], binding["destination"], binding["routing_key"])
        for binding in broker.api("GET", f"/api/bindings/{host}")
        if binding["source"]
    ]
    return {
        "queues": set(broker.queues(interchange.virtual_host)),
        "users": users,
        "bindings": sorted(bindings),
        "exchanges": {exchange["name"] for exchange in broker.api("GET", f"/api/exchanges/{host}")},
    }


def drain(connection, queue, count):
    """Reads so many results from a queue, acknowledges them, and stops consuming."""
    channel = connection.channel()
    got = []
    for method, _, body in channel.consume(queue, inactivity_timeout=30):
        assert method is not None, f"only {len(got)} of {count} results came"
        channel.basic_ack(method.delivery_tag)
        got.append(json.loads(body[1:])["data"]["task_id"])
        if len(got) == count:
            break
    channel.close()
    return got


def test_two_thousand_task_groups_leave_the_broker_as_it_was(tidy, carol, speak):
    registration, function = carol.endpoint(), carol.function()
    speaker = speak(registration)
    connection, _ = carol.result_queue("x")
    prefix = carol.done("GET", "/v2/get_amqp_result_connection_url")["queue_prefix"]
    before = state_of_broker(tidy)
    done = 0
    with ThreadPoolExecutor(8) as pool:
        while done < 2000:
            submits = list(pool.map(lambda _: carol.submit(speaker.id, function), range(100)))
            for properties, _ in speaker.tasks(100):
                speaker.publish("result", result_body(properties.headers["task_uuid"]))
            for submitted in submits:
                task = submitted["tasks"][function][0]
                assert drain(connection, prefix + submitted["task_group_id"], 1) == [task]
            done += 100
    connection.close()
    eventually(lambda: state_of_broker(tidy) == before, "the broker is as it was", 120)
    assert metric(tidy, "cleaned_total", kind="result_queue") >= 2000


def test_a_queue_that_is_waited_on_stays(tidy, carol, speak):
    registration, function = carol.endpoint(), carol.function()
    speaker = speak(registration)
    submitted = carol.submit(speaker.id, function)
    connection, queue = carol.result_queue(submitted["task_group_id"])
    waiting = connection.channel()
    waiting.basic_consume(queue, lambda *_: None, auto_ack=True)
    unread = carol.submit(speaker.id, function)
    for properties, _ in speaker.tasks(2):
        speaker.publish("result", result_body(properties.headers["task_uuid"]))
    unfinished = carol.submit(speaker.id, function)
    prefix = queue.removesuffix(submitted["task_group_id"])
    # One that nobody needs any more shows that enough rounds of cleaning up have passed for the others as well.
    needless = carol.submit(speaker.id, function)
    for properties, _ in speaker.tasks(2):
        if properties.headers["task_uuid"] in needless["tasks"][function]:
            speaker.publish("result", result_body(properties.headers["task_uuid"]))
    drain(connection, prefix + needless["task_group_id"], 1)

    def needless_is_gone():
        connection.process_data_events(0)
        return prefix + needless["task_group_id"] not in tidy.broker.queues(tidy.virtual_host)

    eventually(needless_is_gone, "the queue that nobody needs is gone", 40)
    queues = tidy.broker.queues(tidy.virtual_host)
    assert queue in queues, "it has a consumer"
    assert prefix + unread["task_group_id"] in queues, "it has a result"
    assert prefix + unfinished["task_group_id"] in queues, "its task is not done"
    # A consumer that went away for a moment finds its queue again, and later submits find it, too.
    connection.close()
    carol.submit(speaker.id, function, task_group_id=submitted["task_group_id"])
    assert queue in tidy.broker.queues(tidy.virtual_host)


def test_a_task_group_whose_queue_was_removed_gets_it_back(tidy, carol, speak):
    registration, function = carol.endpoint(), carol.function()
    speaker = speak(registration)
    submitted = carol.submit(speaker.id, function)
    group = submitted["task_group_id"]
    speaker.tasks(1)
    speaker.publish("result", result_body(submitted["tasks"][function][0]))
    connection, queue = carol.result_queue(group)
    drain(connection, queue, 1)
    eventually(lambda: queue not in tidy.broker.queues(tidy.virtual_host), "the queue is gone", 40)
    again = carol.submit(speaker.id, function, task_group_id=group)
    speaker.tasks(1)
    speaker.publish("result", result_body(again["tasks"][function][0]))
    assert drain(connection, queue, 1) == again["tasks"][function]
    connection.close()


def test_a_deleted_endpoint_leaves_nothing_and_its_tasks_fail(tidy, carol, speak):
    before = state_of_broker(tidy)
    registration, function = carol.endpoint("template"), carol.function()
    submitted = carol.submit(registration["endpoint_id"], function, create_queue=False)
    user_endpoint = speak(json.loads(speak(registration).tasks(1)[0][1])["kwargs"]["amqp_creds"])
    user_endpoint.publish("heartbeat", heartbeat_body(user_endpoint.id))
    carol.done("DELETE", f"/v2/endpoints/{registration['endpoint_id']}")
    answer = carol.done("GET", f"/v2/tasks/{submitted['tasks'][function][0]}")
    assert answer["status"] == "failed" and "was deleted" in answer["exception"]
    eventually(lambda: state_of_broker(tidy) == before, "the broker is as it was", 30)
    assert carol.call("GET", f"/v2/endpoints/{registration['endpoint_id']}")[0] == 404


def test_old_tasks_go_away(make_interchange, speak):
    interchange = make_interchange(
        environment={**SOON, "WAYPOST_INTERCHANGE_TASK_LIFE": "2", "WAYPOST_INTERCHANGE_UNREAD_TASK_LIFE": "12"}
    )
    api = Api(interchange, interchange.create_client("short"))
    registration, function = api.endpoint(), api.function()
    submitted = api.submit(registration["endpoint_id"], function, 2)
    read, unread = submitted["tasks"][function]
    speaker = speak(registration)
    speaker.tasks(2)
    for task in (read, unread):
        speaker.publish("result", result_body(task))
    eventually(lambda: api.done("GET", f"/v2/tasks/{read}")["status"] == "success", "success")
    eventually(lambda: api.call("GET", f"/v2/tasks/{read}")[0] == 404, "the task that was read is gone", 20)
    group = api.done("GET", f"/v2/taskgroup/{submitted['task_group_id']}")
    assert [task["id"] for task in group["tasks"]] == [unread], "nobody has read this one"
    eventually(
        lambda: api.done("GET", f"/v2/taskgroup/{submitted['task_group_id']}")["tasks"] == [],
        "the task that nobody read is gone",
        30,
    )


def test_unused_result_queues_expire_on_the_broker_itself(make_interchange):
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_RESULT_QUEUE_EXPIRY": "3"})
    api = Api(interchange, interchange.create_client("expiring"))
    submitted = api.submit(api.endpoint()["endpoint_id"], api.function())
    connection, queue = api.result_queue(submitted["task_group_id"])
    connection.close()
    assert queue in interchange.broker.queues(interchange.virtual_host)
    eventually(lambda: queue not in interchange.broker.queues(interchange.virtual_host), "it has expired", 15)
    # Who asks for the group is about to wait on its queue.
    api.done("GET", f"/v2/taskgroup/{submitted['task_group_id']}")
    connection, queue = api.result_queue(submitted["task_group_id"])
    assert connection.channel().queue_declare(queue, passive=True).method.message_count == 0
    connection.close()
