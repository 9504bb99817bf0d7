"""A user of the unmodified SDK signs in: in Chromium, with the link that the SDK prints."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import threading

import pytest
from harness.browser import Browser
from harness.sign_in import code_for
from interchange.calls import eventually, result_body, sql

PASSWORD = "correct horse battery"


class Program:
    """A program of the SDK that may ask its user to sign in."""

    def __init__(self, python, environment, text):
        text = "import json\nfrom globus_compute_sdk import Client, Executor\n" + text
        self.process = subprocess.Popen(
            [python, "-u", "-c", text],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.errors = []
        self._reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self._reader.start()
        # Nothing that is read here waits for ever.
        self._guard = threading.Timer(300, self.end)
        self._guard.start()

    def end(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self._guard.cancel()

    def failure(self):
        self.process.wait()
        self._reader.join(10)
        return "".join(self.errors)

    def link(self):
        """The link that it prints for its user."""
        for line in self.process.stdout:
            if line.startswith("http"):
                return line.strip()
        raise AssertionError(f"it asks nobody to sign in: {self.failure()}")

    def paste(self, code):
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()

    def printed(self):
        """The JSON of its next line that is an object or array."""
        for line in self.process.stdout:
            found = re.search(r"[\[{].*", line)
            if found:
                return json.loads(found[0])
        raise AssertionError(f"it ended without a word: {self.failure()}")


@pytest.fixture
def program(sdk, interchange, tmp_path):
    """Starts programs of a user, each in the environment of the one before."""
    environment = interchange.user_environment(tmp_path / "user")
    with contextlib.ExitStack() as ends:

        def start(text):
            made = Program(sdk.python, environment, text)
            ends.callback(made.end)
            return made

        yield start


@pytest.fixture
def user(interchange, request):
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return interchange.create_user(name, PASSWORD)


REGISTER = """
client = Client()
def function(x): return x
print(json.dumps([client.register_function(function)]))
"""


def test_a_user_of_the_sdk_signs_in_in_chromium(program, keeper, interchange, user, tmp_path):
    running = program(REGISTER)
    link = running.link()
    with Browser(keeper, interchange.url) as browser:
        browser.open(link)
        assert browser.title == "Sign in – Waypost"
        shown = browser.text()
        assert "Globus Compute" in shown and "run tasks" in shown and "see your name" in shown
        # The style sheet is in force: the policy of the page allows it.
        assert browser.css("main", "padding-left") == "32px"
        assert browser.is_focused("#name")
        browser.type("#name", user.name)
        browser.type("#password", "wrong password")
        browser.click("button[value=allow]")
        browser.wait_until(lambda: browser.has(".problem"), "the page says that the password is wrong")
        assert browser.text(".problem") == "The name or the password is wrong."
        assert browser.value("#name") == user.name and browser.value("#password") == ""
        assert browser.is_focused("#password")
        browser.complaints()
        browser.type("#password", PASSWORD)
        browser.click("button[value=allow]")
        browser.wait_until(lambda: browser.has("#code"), "the page shows the code")
        assert browser.address.startswith("http://localhost:5000/v2/web/auth-code?")
        code = browser.value("#code")
        assert not [text for text in browser.complaints() if "favicon" not in text]
    running.paste(code)
    (function,) = running.printed()
    assert sql(interchange, f"SELECT count(*) FROM users JOIN functions ON owner = users.id AND {named(user)}") == ["1"]
    assert function


def named(user):
    return f"users.name = '{user.name}'"


def test_a_native_client_gets_its_code_on_its_own_machine(keeper, interchange, user):
    """Chromium follows the answer of the form to another origin only if the page's policy names it."""
    import http.server

    from interchange.test_sign_in import authorize_url, redeem

    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p id=done>thanks")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        back = f"http://127.0.0.1:{server.server_port}/callback"
        try:
            with Browser(keeper) as browser:
                browser.open(authorize_url(interchange, redirect_uri=back, login_hint=user.name))
                assert browser.value("#name") == user.name and browser.is_focused("#password")
                browser.type("#password", PASSWORD)
                browser.click("button[value=allow]")
                browser.wait_until(lambda: browser.has("#done"), "the client's own page")
        finally:
            server.shutdown()
    code = re.search(r"^/callback\?code=([\w-]+)&state=_default$", asked[0])[1]
    assert redeem(interchange, code, redirect_uri=back)[0] == 200


def test_what_a_user_submits_is_the_users_and_its_tokens_are_renewed_until_it_logs_out(
    program, interchange, user, speak, tmp_path
):
    running = program("""
client = Client()
metadata = {"endpoint_version": "4.19.0", "config": {"engine": {}}}
made = client.register_endpoint("of the user", None, metadata=metadata)
print(json.dumps(getattr(made, "data", made)))
def function(x): return x
function_id = client.register_function(function)
task = client.run(1, endpoint_id=made["endpoint_id"], function_id=function_id)
print(json.dumps([task]))
input()
print(json.dumps([client.get_result(task)]))
""")
    link = running.link()
    running.paste(code_for(interchange.url, link, user.name, PASSWORD))
    registration = running.printed()
    (task,) = running.printed()
    speaker = speak(registration)
    speaker.tasks(1)
    speaker.publish("result", result_body(task, "00\ngARLKi4=\n"))
    owned = f"SELECT tasks.state FROM tasks JOIN users ON users.id = tasks.owner WHERE {named(user)}"
    eventually(lambda: sql(interchange, owned) == ["success"], "the result is stored")
    running.paste("")
    assert running.printed() == [42]

    # The service no longer takes the access tokens: the SDK renews them when it is refused.
    tokens = f"tokens WHERE client_id IN (SELECT id FROM users WHERE {named(user)})"
    sql(interchange, f"DELETE FROM {tokens}")
    check = f'print(json.dumps([Client().get_endpoint_status("{registration["endpoint_id"]}")["status"]]))'
    assert program(check).printed()[0] in ("online", "offline")
    assert sql(interchange, f"SELECT count(*) FROM {tokens}") != ["0"]

    # They are over by the SDK's own clock: it renews them before it asks.
    storage = tmp_path / "user" / "storage.db"
    with contextlib.closing(sqlite3.connect(storage, timeout=20)) as database, database:
        for server, text in database.execute("SELECT resource_server, token_data_json FROM token_storage").fetchall():
            old = {**json.loads(text), "expires_at_seconds": 1, "access_token": "over"}
            change = "UPDATE token_storage SET token_data_json = ? WHERE resource_server = ?"
            database.execute(change, (json.dumps(old), server))
    assert program(check).printed()[0] in ("online", "offline")
    with contextlib.closing(sqlite3.connect(storage, timeout=20)) as database:
        found = database.execute("SELECT token_data_json FROM token_storage WHERE resource_server = 'funcx_service'")
        (renewed,) = [json.loads(text) for (text,) in found]
    assert renewed["access_token"] != "over" and renewed["expires_at_seconds"] > 1
    assert renewed["identity_id"] == user.id

    refreshing = f"SELECT count(*) FROM refresh_tokens JOIN users ON users.id = user_id WHERE {named(user)}"
    assert sql(interchange, refreshing) == ["2"]
    assert program("Client().logout()\nprint(json.dumps([True]))").printed() == [True]
    assert sql(interchange, refreshing) == ["0"] and sql(interchange, f"SELECT count(*) FROM {tokens}") == ["0"]
    assert program(check).link().startswith("http://localhost:5000/v2/oauth2/authorize?")
