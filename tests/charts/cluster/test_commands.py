"""The commands of `endpoint` in an agent's pod and on a laptop: the same words, and the same exit codes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from harness import checkout
from harness.endpoint import Endpoint, wait_for

NAME = "lab"
WAIT = 120
STAYS = " Its agent stays, and `endpoint start lab` starts it again."
"""What a stop says beside it in a pod, whose process does not end: the kubelet would start it again."""


@dataclass(frozen=True)
class Said:
    status: int
    output: str
    errors: str


class Laptop:
    """The endpoint on this machine."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint

    def run(self, *arguments: str) -> Said:
        done = self._endpoint.run(*arguments, check=False, timeout=WAIT)
        return Said(done.returncode, *(self._plain(text) for text in (done.stdout, done.stderr)))

    def _plain(self, text: str) -> str:
        return _plain(text.replace(str(self._endpoint.folder), "FOLDER"))


class Pod:
    """The endpoint of a release."""

    def __init__(self, release):
        self._release = release

    def run(self, *arguments: str) -> Said:
        where = ["--namespace", self._release.namespace, "exec", self._release.agent(), "--container", "endpoint"]
        done = self._release.cluster.run_kubectl(*where, "--", "endpoint", *arguments)
        errors = re.sub(r"command terminated with exit code \d+\n", "", done.stderr)
        return Said(done.returncode, self._plain(done.stdout), self._plain(errors))

    def _plain(self, text: str) -> str:
        return _plain(text.replace("/var/lib/waypost", "FOLDER"))


def _plain(text: str) -> str:
    """A text without what differs between any two endpoints."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    return text.replace(f".{STAYS}", "").strip()


@pytest.fixture
def places(make_release, make_endpoint, interchange, client):
    release = make_release(name=NAME)
    release.install()
    laptop = make_endpoint(interchange, client, "template", name=NAME, python=checkout.clients("4.19.0").python)
    release.wait_running()
    yield Pod(release), Laptop(laptop)
    # The one that was started away from here, too.
    laptop.run("stop", NAME)


def test_commands_say_and_end_in_a_pod_as_on_a_laptop(places):
    pod, laptop = places
    for command in WHILE_IT_RUNS:
        assert pod.run(*command) == laptop.run(*command), command
    both_say(places, "status", NAME, lines=2)

    both_say(places, "stop", NAME)
    for command in (["stop", NAME], ["list"]):
        assert pod.run(*command) == laptop.run(*command), command
    both_say(places, "status", NAME, lines=2)

    both_say(places, "start", NAME, "--detach")
    for place in places:
        wait_for(lambda place=place: "lab: running" in place.run("status", NAME).output, "the endpoint to run", WAIT)
    assert pod.run("list") == laptop.run("list")


def both_say(places, *command: str, lines: int | None = None) -> None:
    """Runs a command that succeeds at both places, and compares what it prints: all, or the first lines. In a pod there is
    more in the others: the process stays there, and has a port for its figures."""
    said = [place.run(*command) for place in places]
    assert [each.status for each in said] == [0, 0], said
    first, second = (each.output.splitlines()[:lines] for each in said)
    assert first == second and first, command


def test_another_endpoint_is_not_started_in_the_pod_of_one(places):
    pod, _ = places
    assert pod.run("configure", "other").status == 0
    said = pod.run("start", "other")
    assert said.status == 73
    assert "This pod is that of the endpoint <lab>" in said.errors
    assert "other" in pod.run("list").output
    assert pod.run("delete", "other", "--yes") == Said(0, "Endpoint <other> has been deleted", "")
    assert "other" not in pod.run("list").output


WHILE_IT_RUNS = [
    *([command, "nobody"] for command in ("start", "stop", "restart", "status")),
    ["delete", "nobody", "--yes"],
    ["configure", NAME],
    ["configure", "11111111-2222-3333-4444-555555555555"],
    ["configure", "other"],
    ["status", "other"],
    ["stop", "other"],
    ["list"],
    ["delete", "other", "--yes"],
    ["start", NAME],
    ["delete", NAME, "--yes"],
    ["list"],
    ["validate", "/nowhere"],
    ["login"],
    ["logout"],
    ["whoami"],
    ["version"],
]
"""None of these changes what runs."""
