"""Plain HTTP and AMQP clients of the interchange, for what an SDK never does."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pika
from harness import http
from harness.postgresql import programs

COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
AUTH_SCOPE = "openid profile email"


def token(interchange, client, scope=COMPUTE_SCOPE):
    """The answer to a request for an access token: status and JSON."""
    return oauth(interchange, client, "token", grant_type="client_credentials", scope=scope)


def oauth(interchange, client, path, **form):
    """The answer to a client's call to the token service: status and JSON. Without a client nobody proves who calls."""
    request = urllib.request.Request(f"{interchange.url}/v2/oauth2/{path}", data=urlencode(form).encode())
    if client is not None:
        basic = base64.b64encode(f"{client.id}:{client.secret}".encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sql(interchange, *statements):
    """What the last of these statements gives on the interchange's database: a line of text for each row, with `|`
    between its values."""
    if interchange.database.startswith("postgres"):
        command = [programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", interchange.database]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True)
        return done.stdout.splitlines()
    with contextlib.closing(sqlite3.connect(interchange.folder / "interchange.db", timeout=20)) as database, database:
        for statement in statements:
            rows = database.execute(statement).fetchall()
        return ["|".join(str(value) for value in row) for row in rows]


class Api:
    """One client's calls. Each gives the status and the answer's JSON."""

    def __init__(self, interchange, client):
        self.interchange = interchange
        self.client = client
        self.id = client.id
        _, compute = token(interchange, client)
        _, auth = token(interchange, client, AUTH_SCOPE)
        self.tokens = {"compute": compute["access_token"], "auth": auth["access_token"]}

    def call(self, method, path, body=None, server="compute", timeout=30.0):
        headers = {"Authorization": f"Bearer {self.tokens[server]}"}
        status, text = http.call(method, f"{self.interchange.url}{path}", body, headers=headers, timeout=timeout)
        return status, json.loads(text) if text.strip() else None

    def done(self, method, path, body=None, **options):
        """The answer's JSON of a call that must succeed."""
        status, answer = self.call(method, path, body, **options)
        assert status == 200, answer
        return answer

    def function(self, **fields):
        """A new function's id."""
        body = {"function_name": "f", "function_code": "4\n01\nc", "meta": {"python_version": "3.11"}, **fields}
        return self.done("POST", "/v3/functions", body)["function_uuid"]

    def endpoint(self, kind="direct", **fields):
        """The answer to the registration of a new endpoint."""
        metadata = {"endpoint_version": "4.19.0"}
        metadata |= {"user_config_template": "engine: {}"} if kind == "template" else {"config": {"engine": {}}}
        return self.done("POST", "/v3/endpoints", {"endpoint_name": "e", "metadata": metadata, **fields})

    def submit(self, endpoint_id, function_id, count=1, **fields):
        """The answer to a submit of so many tasks."""
        body = {
            "tasks": {function_id: [f"4\n00\n{number}\n" for number in range(count)]},
            "create_queue": True,
            **fields,
        }
        return self.done("POST", f"/v3/endpoints/{endpoint_id}/submit", body)

    def result_queue(self, group):
        """A connection to the broker as this client, and the name of the group's queue."""
        url = self.done("GET", "/v2/get_amqp_result_connection_url")
        return connect(url["connection_url"]), url["queue_prefix"] + group


def connect(url):
    """A connection to the broker."""
    return pika.BlockingConnection(pika.URLParameters(url))


def result_body(task_id, data="00\ngARLCC4=\n", error=None):
    """The wire form of a result."""
    result = {
        "task_id": task_id,
        "data": data,
        "details": {"python_version": "3.11.2"},
        "error_details": error,
        "task_statuses": [
            {"timestamp": time.time_ns(), "state": "execution-start", "actor": "worker"},
            {"timestamp": time.time_ns(), "state": "execution-end", "actor": "worker"},
        ],
    }
    return b"\x01" + json.dumps({"message_type": "result", "data": result}).encode()


def heartbeat_body(endpoint_id, **state):
    """The wire form of a heartbeat."""
    report = {"endpoint_id": endpoint_id, "global_state": {"heartbeat_period": 30, **state}, "task_statuses": {}}
    return b"\x01" + json.dumps({"message_type": "ep_status_report", "data": report}).encode()


class Speaker:
    """An endpoint as the broker sees it: its connection, and what its registration told it."""

    def __init__(self, registration):
        self.registration = registration
        self.id = registration["endpoint_id"]
        info = registration.get("task_queue_info") or registration["command_queue_info"]
        self.queue = info["queue"]
        self.connection = connect(info["connection_url"])
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def publish(self, what, body, key=None):
        """Publishes a "result" or a "heartbeat", under its own key unless another is named."""
        arguments = self.registration[f"{what}_queue_info"]["queue_publish_kwargs"]
        self.channel.basic_publish(
            arguments["exchange"], key or arguments["routing_key"], body, pika.BasicProperties(delivery_mode=2), True
        )

    def tasks(self, count, seconds=20):
        """Takes so many messages from its queue: each as its AMQP properties and body."""
        taken = []
        for method, properties, body in self.channel.consume(self.queue, inactivity_timeout=seconds):
            assert method is not None, f"only {len(taken)} of {count} messages came within {seconds} s"
            self.channel.basic_ack(method.delivery_tag)
            taken.append((properties, body))
            if len(taken) == count:
                break
        self.channel.cancel()
        return taken

    def close(self):
        # The broker may have cut it already.
        with contextlib.suppress(pika.exceptions.AMQPError):
            self.connection.close()


def metric(interchange, name, **labels):
    """A metric's value; 0 if it is not there yet."""
    _, text = http.call("GET", f"{interchange.url}/metrics")
    wanted = "{" + ",".join(f'{label}="{value}"' for label, value in sorted(labels.items())) + "}" if labels else ""
    for line in text.splitlines():
        if line.startswith(f"waypost_interchange_{name}{wanted} "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def eventually(condition, what, seconds=20.0):
    """Waits until the condition gives something true, and gives that."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
