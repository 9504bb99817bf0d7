"""The few HTTP calls that the harness itself makes."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request

# The harness speaks to its own services only, so a proxy of the machine's is never asked.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HttpError(Exception):
    """A service answered with an error."""

    def __init__(self, method: str, url: str, status: int, body: str):
        super().__init__(f"{method} {url} was answered with {status}: {body[:500]}")
        self.status = status
        self.body = body


def call(
    method: str,
    url: str,
    body: object = None,
    user: tuple[str, str] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> tuple[int, str]:
    """Status and text of the answer, whatever the status. `body` is sent as JSON. OSError if nobody answers."""
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if user is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(user).encode()).decode())
    try:
        with _opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")


def fetch(method: str, url: str, body: object = None, **options: object) -> object:
    """The answer's JSON (None if it has no body). HttpError if the status is 400 or more."""
    status, text = call(method, url, body, **options)
    if status >= 400:
        raise HttpError(method, url, status, text)
    return json.loads(text) if text.strip() else None


def answers_with(url: str, status: int = 200) -> bool:
    """Whether a GET gives this status now."""
    try:
        return call("GET", url, timeout=2.0)[0] == status
    except OSError:
        return False
