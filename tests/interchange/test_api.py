"""Every call, as its clients make it and as they get it wrong."""

from __future__ import annotations

import json
import socket

import pytest
from harness import http
from interchange.calls import AUTH_SCOPE, COMPUTE_SCOPE, Api, eventually, heartbeat_body, oauth, result_body, token


def test_the_version_is_told_to_anybody(interchange):
    answer = http.fetch("GET", f"{interchange.url}/v2/version?service=all")
    assert answer["min_sdk_version"] and answer["min_ep_version"]


def test_a_request_target_in_absolute_form_is_answered(interchange):
    with socket.create_connection(("127.0.0.1", interchange.port), timeout=10) as connection:
        connection.sendall(
            b"GET http://localhost:5000/v2/version HTTP/1.1\r\nHost: localhost:5000\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_probes_and_metrics_answer(interchange):
    assert http.call("GET", f"{interchange.url}/livez")[0] == 200
    status, text = http.call("GET", f"{interchange.url}/readyz")
    assert (status, json.loads(text)) == (200, {"broker": True, "database": True})
    assert "waypost_interchange_broker_connected 1" in http.call("GET", f"{interchange.url}/metrics")[1]


# --- tokens


def test_a_token_request_gives_one_token_per_resource_server(interchange, alice):
    status, answer = token(interchange, alice.client, f"{COMPUTE_SCOPE} {COMPUTE_SCOPE} {AUTH_SCOPE}")
    assert status == 200
    assert (answer["resource_server"], answer["scope"]) == ("funcx_service", COMPUTE_SCOPE)
    assert answer["token_type"] == "Bearer" and answer["expires_in"] > 0
    assert [other["resource_server"] for other in answer["other_tokens"]] == ["auth.globus.org"]


@pytest.mark.parametrize(
    ("scope", "secret", "expected"),
    [
        (COMPUTE_SCOPE, "wrong", (401, "invalid_client")),
        ("https://auth.globus.org/scopes/other", None, (400, "invalid_scope")),
        ("", None, (400, "invalid_scope")),
    ],
)
def test_a_wrong_token_request_is_refused(interchange, alice, scope, secret, expected):
    client = type(alice.client)(alice.id, secret or alice.client.secret)
    status, answer = token(interchange, client, scope)
    assert (status, answer["error"]) == expected


def test_a_token_is_good_for_its_own_service_only(alice):
    assert alice.call("GET", "/v2/endpoints", server="auth")[0] == 403
    assert alice.call("GET", "/v2/oauth2/userinfo")[0] == 403
    answer = alice.done("GET", "/v2/oauth2/userinfo", server="auth")
    assert answer["sub"] == alice.id and answer["identity_set"][0]["sub"] == alice.id
    answer = alice.done("GET", f"/v2/api/identities?ids={alice.id}", server="auth")
    assert [identity["id"] for identity in answer["identities"]] == [alice.id]


def test_no_token_and_a_made_up_token_are_refused(interchange):
    for headers in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic eDp5"}):
        status, text = http.call("GET", f"{interchange.url}/v2/endpoints", headers=headers)
        assert (status, json.loads(text)["code"]) == (401, "USER_UNAUTHENTICATED")


def listed_with(interchange, bearer):
    """The status of a call with this token."""
    headers = {"Authorization": f"Bearer {bearer}"}
    return http.call("GET", f"{interchange.url}/v2/endpoints", headers=headers)[0]


def test_a_token_ends_when_its_own_client_revokes_it(interchange, alice, bob):
    bearer = token(interchange, alice.client)[1]["access_token"]
    assert oauth(interchange, bob.client, "token/revoke", token=bearer)[0] == 200
    assert listed_with(interchange, bearer) == 200, "a stranger ends nothing"
    assert oauth(interchange, alice.client, "token/revoke", token=bearer)[0] == 200
    assert listed_with(interchange, bearer) == 401


def test_a_token_ends_when_its_time_is_over(make_interchange):
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_TOKEN_LIFETIME": "1"})
    _, answer = token(interchange, interchange.create_client("short"))
    assert answer["expires_in"] == 1
    eventually(lambda: listed_with(interchange, answer["access_token"]) == 401, "its time is over")


# --- functions


def test_a_function_is_registered_read_and_deleted(alice):
    function = alice.function(description="what it does")
    answer = alice.done("GET", f"/v2/functions/{function}")
    assert (answer["function_code"], answer["description"]) == ("4\n01\nc", "what it does")
    alice.done("DELETE", f"/v2/functions/{function}")
    status, answer = alice.call("GET", f"/v2/functions/{function}")
    assert (status, answer["code"], answer["http_status_code"]) == (404, "FUNCTION_NOT_FOUND", 404)


def test_source_code_is_packed_for_the_sdks_own_strategy(alice):
    function = alice.function(function_name="f", function_code="def f():\n    return 'é'\n", serialized=False)
    packed = alice.done("GET", f"/v2/functions/{function}")["function_code"]
    length, _, rest = packed.partition("\n")
    assert rest == "st\nf:def f():\n    return 'é'\n"
    assert int(length) == len(rest)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"function_name": ""}, 422, "function_name"),
        ({"function_name": 3}, 400, "function_name"),
        ({"function_code": ""}, 422, "function_code"),
        ({"function_code": "x" * (10 * 1024 * 1024 + 1)}, 413, "function_code"),
        ({"group": "00000000-0000-0000-0000-000000000001"}, 422, "group"),
        ({"public": "yes"}, 400, "public"),
    ],
)
def test_a_wrong_function_is_refused_with_its_field(alice, fields, status, field):
    body = {"function_name": "f", "function_code": "c", **fields}
    got, answer = alice.call("POST", "/v3/functions", body)
    assert (got, answer["error_args"]) == (status, [field]), answer
    assert field in answer["message"] and answer["message"] == answer["reason"]


# --- endpoints


def test_an_endpoint_keeps_its_id_and_queue_when_it_registers_again(alice):
    first = alice.endpoint(display_name="shown")
    second = alice.done(
        "PUT", f"/v3/endpoints/{first['endpoint_id']}", {"endpoint_name": "e", "metadata": {"config": {}}}
    )
    assert second["task_queue_info"] == first["task_queue_info"]
    answer = alice.done("GET", f"/v2/endpoints/{first['endpoint_id']}")
    assert (answer["display_name"], answer["multi_user"]) == ("shown", False)
    assert first["endpoint_id"] in [endpoint["uuid"] for endpoint in alice.done("GET", "/v2/endpoints?role=owner")]


def test_tasks_of_an_endpoint_that_becomes_one_of_the_other_kind_get_an_error(interchange, alice):
    """As when somebody goes from 3.16 to 4.19: its former queues are not read any more."""
    registration, function = alice.endpoint(), alice.function()
    path = f"/v3/endpoints/{registration['endpoint_id']}"
    template = {"endpoint_name": "e", "metadata": {"user_config_template": "engine: {}"}}
    for kind in (template, {"endpoint_name": "e", "metadata": {"config": {}}}):
        tasks = alice.submit(registration["endpoint_id"], function, 2)["tasks"][function]
        alice.done("PUT", path, kind)
        for task in tasks:
            answer = alice.done("GET", f"/v2/tasks/{task}")
            assert answer["status"] == "failed" and "another kind" in answer["exception"], answer
    queues = interchange.broker.queues(interchange.virtual_host)
    assert f"{registration['endpoint_id']}.tasks" in queues and f"{registration['endpoint_id']}.commands" not in queues


def test_a_template_endpoint_gets_a_command_queue_and_no_task_queue(alice):
    registration = alice.endpoint("template")
    assert registration["command_queue_info"]["queue"] == f"{registration['endpoint_id']}.commands"
    assert "task_queue_info" not in registration and "result_queue_info" not in registration


def test_an_endpoint_that_is_not_there_can_not_register_again(alice, somebody):
    status, answer = alice.call("PUT", f"/v3/endpoints/{somebody}", {"endpoint_name": "e"})
    assert (status, answer["code"]) == (404, "ENDPOINT_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"endpoint_name": ""}, 422, "endpoint_name"),
        ({"allowed_functions": ["x"]}, 400, "allowed_functions[0]"),
        ({"high_assurance": True}, 422, "high_assurance"),
        ({"authentication_policy": "00000000-0000-0000-0000-000000000001"}, 422, "authentication_policy"),
        ({"metadata": "text"}, 400, "metadata"),
    ],
)
def test_a_wrong_registration_is_refused_with_its_field(alice, fields, status, field):
    got, answer = alice.call("POST", "/v3/endpoints", {"endpoint_name": "e", **fields})
    assert got == status, answer
    assert answer["error_args"] == [field]


def test_heartbeats_make_an_endpoint_online_with_its_figures_and_offline(alice, speak):
    registration = alice.endpoint()
    speaker = speak(registration)
    path = f"/v2/endpoints/{speaker.id}/status"
    assert alice.done("GET", path)["status"] == "offline"
    speaker.publish("heartbeat", heartbeat_body(speaker.id, total_workers=7))
    answer = eventually(lambda: (a := alice.done("GET", path))["status"] == "online" and a, "online")
    assert answer["details"]["total_workers"] == 7
    speaker.publish("heartbeat", heartbeat_body(speaker.id, active=False))
    eventually(lambda: alice.done("GET", path)["status"] == "offline", "offline")


def test_a_locked_endpoint_loses_its_connection_and_may_not_register_for_a_while(alice, speak):
    registration = alice.endpoint()
    speaker = speak(registration)
    alice.done("POST", f"/v3/endpoints/{speaker.id}/lock")

    def is_cut():
        try:
            speaker.connection.process_data_events(0)
        except Exception:
            return True
        return not speaker.connection.is_open

    eventually(is_cut, "the broker closes the connection")
    status, answer = alice.call("PUT", f"/v3/endpoints/{speaker.id}", {"endpoint_name": "e"})
    assert (status, answer["code"]) == (423, "RESOURCE_LOCKED")
    with pytest.raises(Exception, match="ACCESS_REFUSED|Authentication"):
        speak(registration)


# --- tasks


def test_a_task_goes_to_its_endpoint_and_its_result_comes_back(interchange, alice, speak):
    registration, function = alice.endpoint(), alice.function()
    submitted = alice.submit(
        registration["endpoint_id"],
        function,
        2,
        resource_specification={"num_nodes": 2},
        result_serializers=["a.B", "c.D"],
    )
    first, second = submitted["tasks"][function]
    assert submitted["endpoint_id"] == registration["endpoint_id"] and submitted["request_id"]
    speaker = speak(registration)
    for (properties, body), number in zip(speaker.tasks(2), (0, 1), strict=True):
        task = json.loads(body[1:])
        assert (body[:1], task["message_type"]) == (b"\x01", "task")
        assert task["data"]["task_id"] == (first, second)[number] == properties.headers["task_uuid"]
        assert task["data"]["task_buffer"] == f"4\n01\nc4\n00\n{number}\n"
        assert properties.headers["function_uuid"] == function
        assert json.loads(properties.headers["resource_specification"]) == {"num_nodes": 2}
        assert properties.headers["result_serializers"] == ["a.B", "c.D"]
        assert properties.delivery_mode == 2
    eventually(
        lambda: alice.done("GET", f"/v2/tasks/{first}")["status"] == "waiting-for-ep", "the broker's confirm is noted"
    )

    speaker.publish("result", result_body(first, "00\nvalue\n"))
    speaker.publish("result", result_body(second, "Traceback", {"code": "RemoteExecutionError", "user_message": "m"}))
    connection, queue = alice.result_queue(submitted["task_group_id"])
    got = {}
    for method, properties, body in connection.channel().consume(queue, inactivity_timeout=20):
        assert method is not None, "no result came"
        assert properties.timestamp > 0
        got[json.loads(body[1:])["data"]["task_id"]] = body
        if len(got) == 2:
            break
    connection.close()
    assert set(got) == {first, second}
    good, bad = alice.done("GET", f"/v2/tasks/{first}"), alice.done("GET", f"/v2/tasks/{second}")
    assert (good["status"], good["result"], good["details"]) == ("success", "00\nvalue\n", {"python_version": "3.11.2"})
    assert (bad["status"], bad["exception"]) == ("failed", "Traceback") and "result" not in bad
    times = [float(good[name]) for name in ("received_t", "sent_t", "completion_t")]
    assert times == sorted(times) and float(good["started_t"]) <= float(good["ended_t"])

    answer = alice.done("POST", "/v2/batch_status", {"task_ids": [first, second]})["results"]
    assert {task: status["status"] for task, status in answer.items()} == {first: "success", second: "failed"}
    answer = alice.done("GET", f"/v2/taskgroup/{submitted['task_group_id']}")
    assert {task["id"] for task in answer["tasks"]} == {first, second}


def test_a_batch_of_large_results_is_read_whole(alice, speak):
    """They are more than the service has in memory for one call."""
    registration, function = alice.endpoint(), alice.function()
    submitted = alice.submit(registration["endpoint_id"], function, 12)
    tasks = submitted["tasks"][function]
    speaker = speak(registration)
    speaker.tasks(12)
    data = {task: f"00\n{task * 30000}" for task in tasks}
    for task in tasks:
        speaker.publish("result", result_body(task, data[task]))
    unknown = "00000000-0000-0000-0000-000000000001"
    asked = {"task_ids": [*tasks, unknown, tasks[0]]}

    def found():
        results = alice.done("POST", "/v2/batch_status", asked)["results"]
        return results if all(results[task]["status"] == "success" for task in tasks) else None

    results = eventually(found, "all results", 30)
    assert {task: results[task]["result"] for task in tasks} == data
    assert results[unknown]["reason"] == "unknown task id" and len(results) == 13
    assert alice.done("POST", "/v2/batch_status", {"task_ids": []})["results"] == {}


def test_a_later_submit_joins_its_task_group(alice):
    registration, function = alice.endpoint(), alice.function()
    first = alice.submit(registration["endpoint_id"], function)
    second = alice.submit(registration["endpoint_id"], function, task_group_id=first["task_group_id"])
    assert second["task_group_id"] == first["task_group_id"]
    assert len(alice.done("GET", f"/v2/taskgroup/{first['task_group_id']}")["tasks"]) == 2


def test_equal_submits_are_different_tasks(alice):
    registration, function = alice.endpoint(), alice.function()
    submits = [alice.submit(registration["endpoint_id"], function) for _ in range(2)]
    assert submits[0]["tasks"][function] != submits[1]["tasks"][function]


FUNCTION = "11111111-1111-1111-1111-111111111111"


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 400, "REQUEST_MALFORMED", "body"),
        ({"tasks": {}}, 422, "REQUEST_INVALID", "tasks"),
        ({"tasks": {"f": ["x"]}}, 400, "REQUEST_MALFORMED", "tasks.f"),
        ({"tasks": {FUNCTION: [3]}}, 400, "REQUEST_MALFORMED", f"tasks.{FUNCTION}[0]"),
        ({"tasks": {FUNCTION: ["x"]}, "task_group_id": 3}, 400, "REQUEST_MALFORMED", "task_group_id"),
        ({"tasks": {FUNCTION: ["x"]}, "user_endpoint_config": []}, 400, "REQUEST_MALFORMED", "user_endpoint_config"),
        ({"tasks": {FUNCTION: ["x"] * 5001}}, 422, "REQUEST_INVALID", "tasks"),
        (
            {"tasks": {FUNCTION: ["x", "x" * (10 * 1024 * 1024 + 1)]}},
            413,
            "PAYLOAD_TOO_LARGE",
            f"tasks.{FUNCTION}[1]",
        ),
        (
            {"tasks": {FUNCTION: ["x"]}, "resource_specification": {"x": "x" * 16384}},
            413,
            "PAYLOAD_TOO_LARGE",
            "resource_specification",
        ),
        (
            {"tasks": {FUNCTION: ["x"]}, "result_serializers": ["x" * 1024] * 16},
            413,
            "PAYLOAD_TOO_LARGE",
            "result_serializers",
        ),
        (
            {"tasks": {FUNCTION: ["x"]}, "user_endpoint_config": {"x": "x" * (8 << 20)}},
            413,
            "PAYLOAD_TOO_LARGE",
            "user_endpoint_config",
        ),
    ],
)
def test_a_wrong_submit_is_refused_with_its_field(alice, body, status, code, field):
    endpoint = alice.endpoint()["endpoint_id"]
    got, answer = alice.call("POST", f"/v3/endpoints/{endpoint}/submit", body)
    assert (got, answer["code"], answer["error_args"]) == (status, code, [field]), answer


def test_a_function_and_arguments_that_make_too_large_a_message_are_refused(alice, speak):
    registration = alice.endpoint()
    function = alice.function(function_code="c" * (10 << 20))
    body = {"tasks": {function: ["x", "x" * (7 << 20)]}}
    status, answer = alice.call("POST", f"/v3/endpoints/{registration['endpoint_id']}/submit", body)
    assert (status, answer["code"], answer["error_args"]) == (413, "PAYLOAD_TOO_LARGE", [f"tasks.{function}"]), answer
    # Escapes are bytes of the message too: of these lines each has three.
    body["tasks"][function] = ["x\n" * (2 << 20)]
    status, answer = alice.call("POST", f"/v3/endpoints/{registration['endpoint_id']}/submit", body)
    assert status == 413, answer
    body["tasks"][function] = ["x" * (5 << 20)]
    alice.done("POST", f"/v3/endpoints/{registration['endpoint_id']}/submit", body)
    assert len(speak(registration).tasks(1)) == 1


def test_a_body_that_is_no_json_is_refused(interchange, alice):
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        f"{interchange.url}/v3/functions", data=b"{", headers={"Authorization": f"Bearer {alice.tokens['compute']}"}
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
    assert error.value.code == 400 and json.load(error.value)["error_args"] == ["body"]


def test_what_is_unknown_is_not_found(alice, somebody):
    endpoint, function = alice.endpoint()["endpoint_id"], alice.function()
    tasks = {"tasks": {function: ["x"]}}
    cases = [
        ("POST", f"/v3/endpoints/{somebody}/submit", tasks, "ENDPOINT_NOT_FOUND"),
        ("POST", f"/v3/endpoints/{endpoint}/submit", {"tasks": {somebody: ["x"]}}, "FUNCTION_NOT_FOUND"),
        ("POST", f"/v3/endpoints/{endpoint}/submit", {**tasks, "task_group_id": somebody}, "TASK_GROUP_NOT_FOUND"),
        ("GET", f"/v2/tasks/{somebody}", None, "TASK_NOT_FOUND"),
        ("GET", f"/v2/taskgroup/{somebody}", None, "TASK_GROUP_NOT_FOUND"),
        ("GET", f"/v2/endpoints/{somebody}/status", None, "ENDPOINT_NOT_FOUND"),
        ("DELETE", f"/v2/endpoints/{somebody}", None, "ENDPOINT_NOT_FOUND"),
        ("GET", f"/v2/functions/{somebody}", None, "FUNCTION_NOT_FOUND"),
        ("GET", "/v2/nothing", None, "NOT_FOUND"),
    ]
    for method, path, body, code in cases:
        status, answer = alice.call(method, path, body)
        assert (status, answer["code"]) == (404, code), path
    assert alice.call("GET", "/v2/tasks/not-a-uuid")[0] == 400
    assert alice.call("PATCH", "/v2/functions")[0] == 405
    answer = alice.done("POST", "/v2/batch_status", {"task_ids": [somebody]})["results"]
    assert answer[somebody]["reason"] == "unknown task id"


def test_a_function_that_the_endpoint_does_not_list_is_refused(alice):
    listed, other = alice.function(), alice.function()
    registration = alice.endpoint(allowed_functions=[listed])
    alice.submit(registration["endpoint_id"], listed)
    status, answer = alice.call(
        "POST", f"/v3/endpoints/{registration['endpoint_id']}/submit", {"tasks": {other: ["x"]}}
    )
    assert (status, answer["code"]) == (403, "FUNCTION_NOT_PERMITTED")
    answer = alice.done("GET", f"/v3/endpoints/{registration['endpoint_id']}/allowed_functions")
    assert answer["functions"] == [listed]


# --- template endpoints


def commands(speaker, count):
    return [json.loads(body) for _, body in speaker.tasks(count)]


def test_each_configuration_has_a_user_endpoint_of_its_own(alice, speak):
    registration, function = alice.endpoint("template"), alice.function()
    speaker = speak(registration)
    for config in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2}, None):
        alice.submit(registration["endpoint_id"], function, user_endpoint_config=config, user_runtime={"python": "3"})
    got = commands(speaker, 4)
    ids = [command["kwargs"]["amqp_creds"]["endpoint_id"] for command in got]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    first = got[0]
    assert (first["command"], first["args"]) == ("cmd_start_endpoint", [])
    assert first["kwargs"]["name"] == f"uep.{registration['endpoint_id']}.{ids[0]}"
    assert first["kwargs"]["user_opts"] == {"a": 1, "b": 2} and first["kwargs"]["user_runtime"] == {"python": "3"}
    assert first["globus_effective_identity"] == alice.id
    assert first["globus_identity_set"] == [{"sub": alice.id}]
    user_endpoint = speak({"endpoint_id": ids[0], **first["kwargs"]["amqp_creds"]})
    assert len(user_endpoint.tasks(2)) == 2


def test_a_command_says_when_it_was_sent_and_ends_in_time(alice, speak):
    import time

    registration, function = alice.endpoint("template"), alice.function()
    alice.submit(registration["endpoint_id"], function)
    ((properties, _),) = speak(registration).tasks(1)
    assert properties.content_type == "application/json"
    assert abs(properties.timestamp - time.time()) < 30
    assert properties.expiration == "180000"


def test_commands_are_sent_again_when_the_endpoint_comes_online(alice, speak):
    registration, function = alice.endpoint("template"), alice.function()
    submitted = alice.submit(registration["endpoint_id"], function)
    speaker = speak(registration)
    (command,) = commands(speaker, 1)
    speaker.publish("heartbeat", heartbeat_body(speaker.id))
    (again,) = commands(speaker, 1)
    assert again["kwargs"]["amqp_creds"] == command["kwargs"]["amqp_creds"]
    credentials = command["kwargs"]["amqp_creds"]
    user_endpoint = speak(credentials)
    user_endpoint.tasks(1)
    task = submitted["tasks"][function][0]
    user_endpoint.publish("heartbeat", heartbeat_body(user_endpoint.id, active=False))
    assert len(commands(speaker, 1)) == 1, "it stopped while a task waits"
    user_endpoint.publish("result", result_body(task))
    eventually(lambda: alice.done("GET", f"/v2/tasks/{task}")["status"] == "success", "success")
    # A new process registers, and nothing waits for it.
    alice.done(
        "PUT",
        f"/v3/endpoints/{speaker.id}",
        {"endpoint_name": "e", "metadata": {"user_config_template": "engine: {}"}},
    )
    speaker.publish("heartbeat", heartbeat_body(speaker.id))
    path = f"/v2/endpoints/{speaker.id}/status"
    eventually(lambda: alice.done("GET", path)["status"] == "online", "online")
    method, _, _ = speaker.channel.basic_get(speaker.queue)
    assert method is None


def test_tasks_of_a_user_endpoint_that_can_not_start_fail_with_the_reason(alice, speak):
    registration, function = alice.endpoint("template"), alice.function()
    submitted = alice.submit(registration["endpoint_id"], function, 3)
    (command,) = commands(speak(registration), 1)
    user_endpoint = speak(command["kwargs"]["amqp_creds"])
    user_endpoint.publish("heartbeat", heartbeat_body(user_endpoint.id, error="'blocks' is undefined"))
    for task in submitted["tasks"][function]:
        answer = eventually(
            lambda task=task: (a := alice.done("GET", f"/v2/tasks/{task}"))["status"] == "failed" and a, "failed"
        )
        assert "'blocks' is undefined" in answer["exception"]

    def queue_is_empty():
        return user_endpoint.channel.queue_declare(user_endpoint.queue, passive=True).method.message_count == 0

    eventually(queue_is_empty, "the tasks are taken from the queue")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_task_queues_are_of_the_type_asked_for_and_have_no_delivery_limit(make_interchange, queue_type):
    """Quorum queues of RabbitMQ 4 have one unless told otherwise; others have none, and refuse to be told."""
    interchange = make_interchange(environment={"WAYPOST_INTERCHANGE_TASK_QUEUE_TYPE": queue_type})
    api = Api(interchange, interchange.create_client("typed"))
    registration = api.endpoint()
    api.submit(registration["endpoint_id"], api.function())
    queue = interchange.broker.queues(interchange.virtual_host)[registration["task_queue_info"]["queue"]]
    assert queue["type"] == queue_type
    is_limited = queue_type == "quorum" and int(interchange.broker.version().split(".")[0]) >= 4
    assert queue["arguments"].get("x-delivery-limit") == (-1 if is_limited else None)
