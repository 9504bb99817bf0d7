"""Signs in on the interchange's page as a browser would, without one."""

from __future__ import annotations

import html
import http.client
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit


@dataclass
class Page:
    """An answer: its status, headers by their names in lower case, and text."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def form(self) -> str:
        """The hidden value that the form on it must send."""
        return html.unescape(re.search(r'name="form" value="([^"]*)"', self.text)[1])

    @property
    def problem(self) -> str | None:
        """What it says is wrong."""
        found = re.search(r'<p class="problem" role="alert">([^<]*)</p>', self.text)
        return html.unescape(found[1]) if found else None

    @property
    def answer(self) -> dict[str, str]:
        """What the address holds that it sends the browser to."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.headers["location"]).query).items()}


@dataclass
class Browser:
    """As much of a browser as a form needs. Every address is asked of the server at `url`, whatever host it names: a
    proxy would do the same."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, address: str, fields: dict[str, str] | None = None) -> Page:
        server, wanted = urlsplit(self.url), urlsplit(address)
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=60)
        headers = {"Host": wanted.netloc or server.netloc}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if fields is not None:
            body = urlencode(fields)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        path = wanted.path + (f"?{wanted.query}" if wanted.query else "")
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            for cookie in answer.headers.get_all("Set-Cookie", []):
                name, value = cookie.split(";")[0].split("=", 1)
                self.cookies[name] = value
            return Page(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
        finally:
            connection.close()

    def sign_in(self, authorize_url: str, name: str, password: str, answer: str = "allow") -> Page:
        """Opens the page and sends its form; gives what comes of it."""
        page = self.call("GET", authorize_url)
        assert page.status == 200, (page.status, page.text)
        fields = {"form": page.form, "name": name, "password": password, "answer": answer}
        return self.call("POST", authorize_url, fields)


def code_for(url: str, authorize_url: str, name: str, password: str) -> str:
    """The code that the interchange at `url` gives to a user who signs in at `authorize_url`."""
    page = Browser(url).sign_in(authorize_url, name, password)
    assert page.status == 303, (page.status, page.problem)
    return page.answer["code"]
