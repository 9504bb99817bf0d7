"""A release of the endpoint's chart, as a user installs it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from harness.charts import ENDPOINT
from harness.interchange import Client, Interchange
from harness.kubernetes.cluster import Cluster, KubectlError
from harness.kubernetes.helm import Helm
from harness.kubernetes.images import Image


class Release:
    """The chart under a name in a namespace, with values beside those that a test on this machine needs."""

    def __init__(
        self,
        helm: Helm,
        interchange: Interchange,
        agent: Image,
        worker: Image,
        name: str,
        namespace: str,
        values: dict | None = None,
    ):
        self.helm = helm
        self.cluster: Cluster = helm.cluster
        self.name = name
        self.namespace = namespace
        repository, _, tag = agent.name.rpartition(":")
        self.values = {
            "image": {"repository": repository, "tag": tag},
            "webService": {"url": interchange.url},
            "worker": {"image": worker.name, "resources": SMALL, "maxIdleTime": 5},
        }
        self.values = merged(self.values, values or {})

    def create_secret(self, name: str, client: Client, family: str = "GLOBUS_COMPUTE") -> None:
        """As the README says: from a file of variables."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "credentials.env"
            file.write_text(f"{family}_CLIENT_ID={client.id}\n{family}_CLIENT_SECRET={client.secret}\n")
            self.kubectl("create", "secret", "generic", name, f"--from-env-file={file}")

    def kubectl(self, *arguments: str, **options: object) -> str:
        """What kubectl prints, in the release's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, **options)

    def install(self, *arguments: str) -> str:
        """What `helm install` prints."""
        return self._change("install", *arguments)

    def upgrade(self, values: dict | None = None, *arguments: str) -> str:
        """What `helm upgrade` prints, with more values."""
        self.values = merged(self.values, values or {})
        return self._change("upgrade", *arguments)

    def _change(self, verb: str, *arguments: str) -> str:
        values = json.dumps(self.values)
        where = ["--namespace", self.namespace, "--values", "-"]
        return self.helm.run(verb, self.name, ENDPOINT, *where, *arguments, input=values)

    def rollback(self) -> None:
        """Back to the revision before."""
        self.helm.run("rollback", self.name, "--namespace", self.namespace)

    def uninstall(self) -> None:
        """As a user does, and waits for the end of all that Helm knows of."""
        self.helm.run("uninstall", self.name, "--namespace", self.namespace, "--wait")

    def test(self) -> str:
        """What `helm test` prints: it runs a task. HelmError if that fails."""
        done = self.helm.complete("test", self.name, "--namespace", self.namespace)
        if done.returncode != 0:
            raise KubectlError(f"{done.stderr}\n{done.stdout}\nThe agent's log:\n{self.logs()[-3000:]}")
        return done.stdout + done.stderr

    def shell(self, command: str, folder: Path) -> subprocess.CompletedProcess:
        """Runs a line as it was printed, in a shell that has kubectl, helm and the way to the cluster."""
        path = f"{self.helm.program.parent}:{self.cluster.kubectl_program.parent}:/usr/bin:/bin"
        environment = {"PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig), "HOME": str(folder)}
        return subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    def status(self) -> dict:
        """What `endpoint status --json` prints in the agent's pod."""
        return json.loads(self.run("status", self.values.get("endpointName") or self.name, "--json"))

    def run(self, *arguments: str) -> str:
        """What a command of `endpoint` prints, run in the agent's pod."""
        return self.kubectl("exec", self.agent(), "--container", "endpoint", "--", "endpoint", *arguments)

    def agent(self) -> str:
        """The name of the agent's pod that is not about to end. KubectlError if there is none."""
        selector = f"app.kubernetes.io/name=waypost-endpoint,app.kubernetes.io/instance={self.name}"
        pods = self.cluster.pods(self.namespace, selector)
        living = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not living:
            raise KubectlError(f"no pod of the release {self.name} is there")
        return living[-1]

    def wait_running(self, timeout: float = 120) -> None:
        """Returns once the agent's pod says that it runs."""

        def runs() -> bool:
            try:
                return self.status()["state"] == "running"
            except KubectlError:
                return False

        self.cluster.wait(runs, f"{self.name} to run", timeout, interval=0.5)

    @property
    def id(self) -> str:
        """The endpoint's id, as the agent says it now."""
        return self.status()["endpoint_id"]

    def logs(self) -> str:
        """What the agent's pod has logged."""
        return self.kubectl("logs", self.agent(), "--container", "endpoint")

    def workers(self, namespace: str | None = None) -> list[dict]:
        """The worker pods of this release."""
        selector = f"app.kubernetes.io/name=waypost-worker,app.kubernetes.io/instance={self.name}"
        return self.cluster.pods(namespace or self.namespace, selector)


SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": 2, "memory": "512Mi"}}
"""What worker pods have on a machine that runs a whole cluster."""


def merged(below: dict, above: dict) -> dict:
    """Two sets of values as one, the second before the first."""
    both = dict(below)
    for key, value in above.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if inner else value
    return both
