"""A private Prometheus that scrapes some programs each second."""

from __future__ import annotations

import json
import urllib.parse

from harness import http, ports
from harness.keeper import Keeper, Process

PACKAGES = ["prometheus"]
"""What Debian calls it; promtool is part of it."""


class Prometheus:
    """It scrapes `targets`, addresses by the name of their job, as pods of the namespace `tests`."""

    def __init__(self, keeper: Keeper, targets: dict[str, str]):
        self.keeper = keeper
        self.targets = targets
        self.port = ports.free_port()
        self.process: Process | None = None

    def start(self) -> Prometheus:
        """Starts it and waits until it answers."""
        folder = self.keeper.temporary_folder("prometheus")
        scrapes = [
            {"job_name": job, "static_configs": [{"targets": [address], "labels": {"namespace": "tests"}}]}
            for job, address in self.targets.items()
        ]
        settings = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": scrapes,
        }
        # JSON is YAML, too.
        (folder / "prometheus.yml").write_text(json.dumps(settings))
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self.process = self.keeper.start("prometheus", command, directory=folder)
        self.process.wait_until(lambda: http.answers_with(f"{self._url}/-/ready"), "ready")
        return self

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def query(self, expression: str) -> list[dict]:
        """The series that an expression gives now. HttpError if it is none."""
        return query(self._url, expression)


def query(url: str, expression: str) -> list[dict]:
    """The series that an expression gives now on the Prometheus at a URL. HttpError if it is none."""
    answer = http.fetch("GET", f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    return answer["data"]["result"]
