"""Nobody reads, runs, stops or deletes what is another's."""

from __future__ import annotations

import re

import pytest
from harness import checkout, http
from interchange.calls import eventually, heartbeat_body, result_body

FUNCTION = {"function_name": "f", "function_code": "4\n01\nc"}
ENDPOINT = {"endpoint_name": "e", "metadata": {"config": {}}}


@pytest.fixture(scope="module")
def owned(alice):
    """Things of Alice's: the ids by which a path or body names them."""
    endpoint, function = alice.endpoint()["endpoint_id"], alice.function()
    submitted = alice.submit(endpoint, function)
    return {
        "endpoint": endpoint,
        "function": function,
        "task": submitted["tasks"][function][0],
        "group": submitted["task_group_id"],
    }


REFUSED = "refused"
OWN = "answered with the caller's own"
ANYBODY = "the same for anybody"

# Every route: what a stranger calls on Alice's things, and what must come of it.
WALK = [
    ("GET", "/v2/version", None, ANYBODY),
    ("GET", "/livez", None, ANYBODY),
    ("GET", "/readyz", None, ANYBODY),
    ("GET", "/metrics", None, ANYBODY),
    ("GET", "/.well-known/openid-configuration", None, ANYBODY),
    ("GET", "/jwk.json", None, ANYBODY),
    ("GET", "/v2/web/style.css", None, ANYBODY),
    ("GET", "/v2/web/auth-code", None, ANYBODY),
    # Who signs in shows a password; test_sign_in has what that is good for.
    ("GET", "/v2/oauth2/authorize", None, ANYBODY),
    ("POST", "/v2/oauth2/authorize", None, ANYBODY),
    ("GET", "/v2/get_amqp_result_connection_url", None, OWN),
    ("GET", "/v2/endpoints", None, OWN),
    ("POST", "/v2/endpoints", ENDPOINT, OWN),
    ("POST", "/v3/endpoints", ENDPOINT, OWN),
    ("POST", "/v2/functions", FUNCTION, OWN),
    ("POST", "/v3/functions", FUNCTION, OWN),
    ("POST", "/v2/batch_status", {"task_ids": ["{task}"]}, OWN),
    ("POST", "/v2/oauth2/token", None, OWN),
    ("POST", "/v2/oauth2/token/revoke", None, OWN),
    ("POST", "/v2/oauth2/token/introspect", None, OWN),
    ("GET", "/v2/oauth2/userinfo", None, OWN),
    ("GET", "/v2/api/identities", None, OWN),
    ("PUT", "/v3/endpoints/{endpoint}", ENDPOINT, REFUSED),
    ("GET", "/v2/endpoints/{endpoint}", None, REFUSED),
    ("DELETE", "/v2/endpoints/{endpoint}", None, REFUSED),
    ("GET", "/v2/endpoints/{endpoint}/status", None, REFUSED),
    ("POST", "/v2/endpoints/{endpoint}/lock", None, REFUSED),
    ("POST", "/v3/endpoints/{endpoint}/lock", None, REFUSED),
    ("GET", "/v3/endpoints/{endpoint}/allowed_functions", None, REFUSED),
    ("POST", "/v3/endpoints/{endpoint}/submit", {"tasks": {"{function}": ["x"]}}, REFUSED),
    ("GET", "/v2/functions/{function}", None, REFUSED),
    ("DELETE", "/v2/functions/{function}", None, REFUSED),
    ("GET", "/v2/tasks/{task}", None, REFUSED),
    ("GET", "/v2/taskgroup/{group}", None, REFUSED),
]


def filled(value, owned):
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda match: owned[match[1]], value)
    if isinstance(value, dict):
        return {filled(key, owned): filled(item, owned) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, owned) for item in value]
    return value


def test_the_walk_visits_every_route():
    routes = set()
    for file in (checkout.ROOT / "interchange/service/src").rglob("*.rs"):
        text = file.read_text()
        for path, methods in re.findall(r'\.route\(\s*(?:"([^"]+)"|PASTE_PATH),\s*([^\n]+?),?\n', text):
            path = path or "/v2/web/auth-code"
            for method in re.findall(r"\b(get|post|put|delete|patch)\(", methods):
                routes.add((method.upper(), path))
    assert len(routes) > 20, "the routes are no longer written as this test reads them"
    walked = {(method, re.sub(r"\{\w+\}", "{id}", path)) for method, path, _, _ in WALK}
    assert walked == routes


@pytest.mark.parametrize(("method", "path", "body"), [step[:3] for step in WALK if step[3] == REFUSED])
def test_a_stranger_is_refused(owned, alice, bob, method, path, body):
    status, answer = bob.call(method, filled(path, owned), filled(body, owned))
    assert status in (403, 404), answer
    assert answer["code"].endswith(("_FORBIDDEN", "_NOT_FOUND"))
    # Nothing has come of it.
    assert alice.call("GET", f"/v2/endpoints/{owned['endpoint']}")[0] == 200
    assert alice.call("GET", f"/v2/functions/{owned['function']}")[0] == 200
    assert len(alice.done("GET", f"/v2/taskgroup/{owned['group']}")["tasks"]) == 1


@pytest.mark.parametrize(("method", "path", "body"), [step[:3] for step in WALK if step[3] != ANYBODY])
def test_who_has_no_token_is_refused(owned, interchange, method, path, body):
    if path.startswith("/v2/oauth2/token"):
        # These take a client's secret, not a token; here they get neither.
        status, _ = http.call(method, interchange.url + path)
        assert status in (400, 401, 415, 422)
        return
    status, _ = http.call(method, interchange.url + filled(path, owned), filled(body, owned))
    assert status == 401


def test_lists_and_batches_hold_the_callers_own_only(owned, bob):
    for role in ("owner", "any"):
        listed = bob.done("GET", f"/v2/endpoints?role={role}")
        assert owned["endpoint"] not in [endpoint["uuid"] for endpoint in listed]
    answer = bob.done("POST", "/v2/batch_status", {"task_ids": [owned["task"]]})["results"][owned["task"]]
    assert answer == {"task_id": owned["task"], "status": "failed", "reason": "unknown task id"}
    identities = bob.done("GET", "/v2/api/identities?ids=" + owned["task"], server="auth")
    assert identities == {"identities": []}


def test_a_stranger_can_not_join_a_task_group(owned, bob):
    endpoint, function = bob.endpoint()["endpoint_id"], bob.function()
    body = {"tasks": {function: ["x"]}, "task_group_id": owned["group"], "create_queue": True}
    status, answer = bob.call("POST", f"/v3/endpoints/{endpoint}/submit", body)
    assert (status, answer["code"]) == (403, "TASK_GROUP_ACCESS_FORBIDDEN")


def test_a_private_function_does_not_run_on_a_strangers_own_endpoint(owned, bob):
    endpoint = bob.endpoint()["endpoint_id"]
    status, answer = bob.call("POST", f"/v3/endpoints/{endpoint}/submit", {"tasks": {owned["function"]: ["x"]}})
    assert (status, answer["code"]) == (403, "FUNCTION_ACCESS_FORBIDDEN")


def test_listing_a_strangers_function_does_not_share_it(owned, bob):
    endpoint = bob.endpoint(allowed_functions=[owned["function"]])["endpoint_id"]
    status, answer = bob.call("POST", f"/v3/endpoints/{endpoint}/submit", {"tasks": {owned["function"]: ["x"]}})
    assert (status, answer["code"]) == (403, "FUNCTION_ACCESS_FORBIDDEN")


def test_a_public_function_is_read_and_run_by_all_and_deleted_by_its_owner(alice, bob):
    function, endpoint = alice.function(public=True), bob.endpoint()["endpoint_id"]
    assert bob.done("GET", f"/v2/functions/{function}")["owner"] == alice.id
    bob.submit(endpoint, function)
    assert bob.call("DELETE", f"/v2/functions/{function}")[0] == 403


def test_a_public_template_endpoint_takes_tasks_of_all_for_user_endpoints_of_their_own(alice, bob, speak):
    import json

    registration = alice.endpoint("template", public=True)
    endpoint, function = registration["endpoint_id"], bob.function()
    assert endpoint in [listed["uuid"] for listed in bob.done("GET", "/v2/endpoints?role=any")]
    alice.submit(endpoint, alice.function())
    bob.submit(endpoint, function)
    first, second = (json.loads(body) for _, body in speak(registration).tasks(2))
    assert first["globus_effective_identity"] == alice.id and second["globus_effective_identity"] == bob.id
    own = [command["kwargs"]["amqp_creds"]["endpoint_id"] for command in (first, second)]
    assert own[0] != own[1]
    # Each sees its own; the template endpoint's owner sees both.
    seen = {
        api.id: api.done("GET", f"/v2/endpoints/{endpoint}/status")["details"]["user_endpoints"] for api in (alice, bob)
    }
    assert [entry["uuid"] for entry in seen[bob.id]] == [own[1]]
    assert {entry["uuid"] for entry in seen[alice.id]} == set(own)
    assert "metadata" not in bob.done("GET", f"/v2/endpoints/{endpoint}")
    for method, path in [("DELETE", f"/v2/endpoints/{endpoint}"), ("POST", f"/v3/endpoints/{endpoint}/lock")]:
        assert bob.call(method, path)[0] == 403
    assert bob.call("PUT", f"/v3/endpoints/{endpoint}", ENDPOINT)[0] == 403


def test_a_public_direct_endpoint_runs_for_strangers_what_its_owner_lists(alice, bob):
    listed = alice.function()
    shared = alice.endpoint(public=True, allowed_functions=[listed])["endpoint_id"]
    bob.submit(shared, listed)
    assert bob.call("POST", f"/v3/endpoints/{shared}/submit", {"tasks": {bob.function(): ["x"]}})[0] == 403
    open_to_read = alice.endpoint(public=True)["endpoint_id"]
    status, answer = bob.call("POST", f"/v3/endpoints/{open_to_read}/submit", {"tasks": {bob.function(): ["x"]}})
    assert (status, answer["code"]) == (403, "ENDPOINT_ACCESS_FORBIDDEN")


def test_an_administrator_may_stop_what_it_was_made_administrator_of(alice, bob):
    endpoint = alice.endpoint(admins=[bob.id])["endpoint_id"]
    bob.done("POST", f"/v3/endpoints/{endpoint}/lock")
    bob.done("DELETE", f"/v2/endpoints/{endpoint}")
    assert alice.call("GET", f"/v2/endpoints/{endpoint}")[0] == 404


def test_a_user_endpoints_id_opens_nothing(alice, bob, speak):
    """Its id is known to its submitter and to the template endpoint's owner, and neither may use it as an endpoint."""
    import json

    registration = alice.endpoint("template", public=True)
    bob.submit(registration["endpoint_id"], bob.function())
    ((_, body),) = speak(registration).tasks(1)
    user_endpoint = json.loads(body)["kwargs"]["amqp_creds"]["endpoint_id"]
    for api in (alice, bob):
        status, _ = api.call("POST", f"/v3/endpoints/{user_endpoint}/submit", {"tasks": {api.function(): ["x"]}})
        assert status == 404
    assert alice.call("DELETE", f"/v2/endpoints/{user_endpoint}")[0] == 403
    assert alice.call("PUT", f"/v3/endpoints/{user_endpoint}", ENDPOINT)[0] == 403
    assert bob.call("PUT", f"/v3/endpoints/{user_endpoint}", ENDPOINT)[0] == 404


def test_the_results_of_a_shared_endpoint_go_to_their_own_submitter(alice, bob, speak):
    function = alice.function()
    registration = alice.endpoint(public=True, allowed_functions=[function])
    submits = {api.id: api.submit(registration["endpoint_id"], function) for api in (alice, bob)}
    speaker = speak(registration)
    speaker.tasks(2)
    speaker.publish("heartbeat", heartbeat_body(speaker.id))
    for identity, submitted in submits.items():
        speaker.publish("result", result_body(submitted["tasks"][function][0], f"00\n{identity}\n"))
    for api, other in ((alice, bob), (bob, alice)):
        task = submits[api.id]["tasks"][function][0]
        answer = eventually(
            lambda api=api, task=task: (a := api.done("GET", f"/v2/tasks/{task}")).get("result") and a, "result"
        )
        assert answer["result"] == f"00\n{api.id}\n"
        assert other.call("GET", f"/v2/tasks/{task}")[0] == 404
