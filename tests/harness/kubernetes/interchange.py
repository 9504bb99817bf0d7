"""A release of the interchange's chart, as a user installs it."""

from __future__ import annotations

import json
from pathlib import Path

from harness import http
from harness.charts import INTERCHANGE
from harness.interchange import Client, client_settings
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.helm import Helm, HelmError
from harness.kubernetes.images import Image
from harness.kubernetes.release import merged
from harness.rabbitmq import RabbitMQ

PORT = 5000


class InstalledInterchange:
    """The chart under a name in a namespace. Database and broker are this machine's; clients call its Service, which
    this machine reaches as well."""

    def __init__(self, helm: Helm, name: str, namespace: str, image: Image, values: dict | None = None):
        self.helm = helm
        self.cluster: Cluster = helm.cluster
        self.name = name
        self.namespace = namespace
        self.port = PORT
        self._address: str | None = None
        repository, _, tag = image.name.rpartition(":")
        self.values = merged(
            {
                "image": {"repository": repository, "tag": tag},
                "database": {"secretName": "database"},
                "broker": {"secretName": "broker"},
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            },
            values or {},
        )

    def create_secrets(self, database: str, broker: RabbitMQ, virtual_host: str) -> None:
        """The two that the chart needs, as the README says."""
        secret = ["create", "secret", "generic"]
        address = broker.url(virtual_host).replace("127.0.0.1", broker.address)
        self.kubectl(*secret, "database", f"--from-literal=url={database}")
        urls = {"url": address, "management-url": broker.management_url}
        self.kubectl(*secret, "broker", *[f"--from-literal={key}={url}" for key, url in urls.items()])

    def kubectl(self, *arguments: str, **options: object) -> str:
        """What kubectl prints, in the release's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, **options)

    def change(self, verb: str, *arguments: str, values: dict | None = None) -> str:
        """What `helm install` or `helm upgrade` prints; with more values from then on."""
        self.values = merged(self.values, values or {})
        where = ["--namespace", self.namespace, "--values", "-"]
        return self.helm.run(verb, self.name, INTERCHANGE, *where, *arguments, input=json.dumps(self.values))

    def test(self) -> str:
        """What `helm test` prints: it goes a client's way. HelmError if that fails."""
        done = self.helm.complete("test", self.name, "--namespace", self.namespace)
        if done.returncode != 0:
            raise HelmError(f"{done.stderr}\n{done.stdout}")
        return done.stdout + done.stderr

    def uninstall(self) -> None:
        """As a user does, and waits for the end of all that Helm knows of."""
        self.helm.run("uninstall", self.name, "--namespace", self.namespace, "--wait")
        self._address = None

    def pods(self) -> list[dict]:
        return self.cluster.pods(self.namespace, "app.kubernetes.io/name=waypost-interchange")

    @property
    def address(self) -> str:
        """The Service's."""
        if self._address is None:
            self._address = self.cluster.get("service", self.name, self.namespace)["spec"]["clusterIP"]
        return self._address

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def wait_ready(self) -> None:
        """Returns once the Service is answered for. Its rules come a moment after the pods are ready."""
        self.cluster.wait(
            lambda: http.answers_with(f"{self.url}/readyz"), "the interchange's Service to be answered for"
        )

    def command(self, *arguments: str) -> str:
        """What `interchange` with these arguments prints, run as NOTES say."""
        return self.kubectl("exec", f"deployment/{self.name}", "--", "/usr/local/bin/interchange", *arguments)

    def create_client(self, name: str = "tests") -> Client:
        """New client credentials."""
        made = json.loads(self.command("client", "create", "--name", name, "--json"))
        return Client(made["client_id"], made["client_secret"])

    def client_environment(self, client: Client, folder: Path) -> dict[str, str]:
        """As that of an interchange on this machine."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = client_settings(self.port, client, folder, self.address)
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder), **settings}
