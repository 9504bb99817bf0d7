"""The unmodified SDKs: what they read of answers and errors."""

from __future__ import annotations

import json
import subprocess

import pytest
from interchange.calls import eventually, result_body


@pytest.fixture
def run(sdk, interchange, alice, tmp_path):
    """Runs a program in the environment of each SDK, as Alice; gives what it prints, a JSON value."""

    def run(program):
        done = subprocess.run(
            [sdk.python, "-c", "import json\nfrom globus_compute_sdk import Client, Executor\n" + program],
            env=interchange.client_environment(alice.client, tmp_path / "client"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


ERRORS = """
from globus_sdk import GlobusAPIError
client = Client()
def what(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except GlobusAPIError as error:
        return [error.http_status, error.code, error.message, bool(error.request_id)]
nobody = "00000000-0000-0000-0000-00000000000f"
def function(): return 1
own = client.register_function(function)
print(json.dumps([
    what(client.get_function, nobody),
    what(client.get_task, nobody),
    what(client.get_endpoint_status, nobody),
    what(client.delete_endpoint, nobody),
    what(client.stop_endpoint, nobody),
    what(client.get_allowed_functions, nobody),
    what(client.run, endpoint_id=nobody, function_id=own),
    what(client.register_endpoint, "", None),
    what(client.register_endpoint, "e", nobody),
]))
"""


def test_the_sdk_raises_its_own_error_with_code_and_message(run):
    nobody = "00000000-0000-0000-0000-00000000000f"
    missing = [404, "ENDPOINT_NOT_FOUND", f"Endpoint {nobody} could not be resolved", True]
    assert run(ERRORS) == [
        [404, "FUNCTION_NOT_FOUND", f"Function {nobody} could not be resolved", True],
        [404, "TASK_NOT_FOUND", f"Task {nobody} could not be resolved", True],
        missing,
        missing,
        missing,
        missing,
        missing,
        [422, "REQUEST_INVALID", "endpoint_name: it must have 1 to 128 characters", True],
        missing,
    ]


LOGIN = """
import os
os.environ["GLOBUS_COMPUTE_CLIENT_SECRET"] = "wrong"
from globus_sdk import AuthAPIError
try:
    Client()
except AuthAPIError as error:
    print(json.dumps([error.http_status, "invalid_client" in error.text]))
"""


def test_the_sdk_says_that_a_secret_is_wrong(run):
    assert run(LOGIN) == [401, True]


def test_the_sdk_reads_results_and_errors_over_http(run, alice, speak):
    registration = alice.endpoint()
    submitted = run(f"""
client = Client()
def function(x): return x
name = client.register_function(function, description="what it does")
ids = [client.run(x, endpoint_id="{registration["endpoint_id"]}", function_id=name) for x in (1, 2)]
details = client.get_function(name)
print(json.dumps(dict(ids=ids, description=details["description"], pending=client.get_task(ids[0])["pending"])))
""")
    assert submitted["pending"] is True and submitted["description"] == "what it does"
    good, bad = submitted["ids"]
    speaker = speak(registration)
    speaker.tasks(2)
    speaker.publish("result", result_body(good, "00\ngARLKi4=\n"))
    speaker.publish("result", result_body(bad, "it went wrong", {"code": "RemoteExecutionError", "user_message": "m"}))
    for task in (good, bad):
        eventually(lambda task=task: alice.done("GET", f"/v2/tasks/{task}")["status"] in ("success", "failed"), "done")
    assert run(f"""
from globus_compute_sdk.errors import TaskExecutionFailed
client = Client()
try:
    client.get_result("{bad}")
except TaskExecutionFailed as error:
    failure = str(error).strip()
batch = client.get_batch_result(["{good}"])["{good}"]
print(json.dumps([client.get_result("{good}"), batch["status"], batch["result"], float(batch["completion_t"]) > 0, failure]))
""") == [42, "success", 42, True, "it went wrong"]


def test_the_sdk_reloads_the_tasks_of_a_group(run, alice, speak):
    registration, function = alice.endpoint(), alice.function()
    submitted = alice.submit(registration["endpoint_id"], function, 2)
    first, second = submitted["tasks"][function]
    speaker = speak(registration)
    speaker.tasks(2)
    for task in (first, second):
        speaker.publish("result", result_body(task, "00\ngARLKi4=\n"))
        eventually(lambda task=task: alice.done("GET", f"/v2/tasks/{task}")["status"] == "success", "success")
    assert run(f"""
with Executor(endpoint_id="{registration["endpoint_id"]}") as executor:
    futures = list(executor.reload_tasks("{submitted["task_group_id"]}"))
    print(json.dumps([future.result(20) for future in futures]))
""") == [42, 42]
