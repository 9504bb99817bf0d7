"""Chromium, driven by WebDriver (the packages `chromium` and `chromium-driver` of Debian)."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from harness import http, ports
from harness.keeper import Keeper

PACKAGES = ["chromium", "chromium-driver"]

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name under which WebDriver gives out an element's id."""

PATIENCE = 120.0
"""Seconds for a call: a browser that starts on a busy machine takes long."""


class Browser:
    """A headless Chromium of its own profile. With `proxy`, every address is asked of the server there."""

    def __init__(self, keeper: Keeper, proxy: str | None = None):
        self._keeper = keeper
        self._proxy = proxy
        self._process = None
        self._session = ""

    def __enter__(self) -> Browser:
        driver = shutil.which("chromedriver")
        if driver is None:
            raise FileNotFoundError(f"chromedriver was not found (Debian: apt-get install {' '.join(PACKAGES)})")
        folder = self._keeper.temporary_folder("browser")
        port = ports.free_port()
        self._url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
        self._process = self._keeper.start(
            "chromedriver", [driver, f"--port={port}"], environment=environment, directory=folder
        )
        self._process.wait_until(lambda: http.answers_with(f"{self._url}/status"), "ready", PATIENCE)
        options = [
            "--headless=new",
            # It shows our own pages only, and its sandbox is refused to root.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            f"--user-data-dir={folder}/profile",
        ]
        if self._proxy is None:
            options.append("--no-proxy-server")
        else:
            # It would not ask a proxy for addresses of this machine, unless told so.
            options += [f"--proxy-server={self._proxy}", "--proxy-bypass-list=<-loopback>"]
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": options, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{made['sessionId']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._process.stop()

    def _call(self, method: str, path: str, body: object = None) -> object:
        return http.fetch(method, self._url + path, body, timeout=PATIENCE)["value"]

    def _do(self, method: str, path: str, body: object = None) -> object:
        return self._call(method, self._session + path, body)

    def _element(self, selector: str) -> str:
        """The path of the element with a CSS selector."""
        found = self._do("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def open(self, address: str) -> None:
        """Goes there, and waits until the page is loaded."""
        self._do("POST", "/url", {"url": address})

    @property
    def address(self) -> str:
        return self._do("GET", "/url")

    @property
    def title(self) -> str:
        return self._do("GET", "/title")

    def text(self, selector: str = "body") -> str:
        """What is to be read there."""
        return self._do("GET", f"{self._element(selector)}/text")

    def value(self, selector: str) -> str:
        """What a field holds."""
        return self._do("GET", f"{self._element(selector)}/property/value")

    def is_focused(self, selector: str) -> bool:
        """Whether what is typed goes there."""
        return self._do("GET", "/element/active")[ELEMENT] == self._element(selector).rsplit("/", 1)[1]

    def has(self, selector: str) -> bool:
        return bool(self._do("POST", "/elements", {"using": "css selector", "value": selector}))

    def type(self, selector: str, text: str) -> None:
        """Types into a field, in place of what is there."""
        self._do("POST", f"{self._element(selector)}/clear", {})
        self._do("POST", f"{self._element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._do("POST", f"{self._element(selector)}/click", {})

    def css(self, selector: str, name: str) -> str:
        """A property of its style, as it is in force."""
        return self._do("GET", f"{self._element(selector)}/css/{name}")

    def complaints(self) -> list[str]:
        """What the browser's console has said since the last call."""
        entries = self._do("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Waits until the condition holds; TimeoutError says what did not come."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {PATIENCE} s: {what}; the page is {self.address}")
            time.sleep(0.1)
