"""Our endpoint on Kubernetes, installed by its chart, with the configuration of tests."""

from __future__ import annotations

import json
import textwrap

from harness import checkout, http, processes
from harness.endpoint import access_token
from harness.interchange import Client, Interchange
from harness.keeper import ProcessError
from harness.kubernetes import ground
from harness.kubernetes.cluster import Cluster, KubectlError
from harness.kubernetes.helm import Helm
from harness.kubernetes.hollow import MARK as HOLLOW
from harness.kubernetes.images import Image

CHART = checkout.ROOT / "helm" / "endpoint"

TEMPLATE = """\
{%- macro flow(value) -%}
{%- if value is mapping -%}{ {%- for key, each in value.items() %}"{{ key }}": {{ flow(each) }}, {% endfor -%} }
{%- elif value is sequence and value is not string -%}[{% for each in value %}{{ flow(each) }}, {% endfor %}]
{%- else -%}{{ value }}{%- endif -%}
{%- endmacro -%}
engine: {{ flow(engine) }}
heartbeat_period: {{ heartbeat_period|default(5) }}
idle_heartbeats_soft: {{ idle_heartbeats_soft|default(0) }}
"""
"""Takes the whole engine from the submitter, so that each test has a user endpoint of its own on a shared agent."""

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"engine": {"type": "object"}},
}


IDLE = {"job_status_kwargs": {"max_idletime": 1}}
"""Options of an engine whose pods go as soon as they may."""


def engine(image: str, namespace: str, provider: dict | None = None, **options: object) -> dict:
    """An engine whose blocks are pods with one slot and little of everything, unless the options say otherwise."""
    defaults = {
        "type": "KubernetesProvider",
        "image": image,
        "image_pull_policy": "IfNotPresent",
        "namespace": namespace,
        "init_blocks": 0,
        "min_blocks": 0,
        "max_blocks": 1,
        "init_cpu": 0.01,
        "max_cpu": 2,
        "init_mem": "32Mi",
        "max_mem": "512Mi",
    }
    return {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 1,
        "provider": {**defaults, **(provider or {})},
        **options,
    }


class KubernetesEndpoint:
    """A release of the chart in a namespace of its own, whose workers are in another."""

    def __init__(
        self,
        cluster: Cluster,
        interchange: Interchange,
        client: Client,
        image: Image,
        worker_image: Image,
        name: str = "endpoint",
        configuration: str = "display_name: null\n",
        template: str | None = TEMPLATE,
    ):
        self.cluster = cluster
        self.interchange = interchange
        self.client = client
        self.image = image
        self.worker_image = worker_image
        self.name = name
        self.namespace = name
        self.workers = f"{name}-workers"
        self.configuration = configuration
        self.template = template
        self._id: str | None = None
        self._access_token: str | None = None

    def values(self, image: Image | None = None) -> str:
        """The values that the chart is given, as YAML."""
        agent = (image or self.image).name.rpartition(":")
        given = {
            "image": {"repository": agent[0], "tag": agent[2]},
            "worker": {"namespace": self.workers, "programImage": self.worker_image.name},
            "webService": {"url": self.interchange.url},
            # One pod less to wait for. Tests of the chart have it.
            "validation": {"enabled": False},
        }
        files: dict[str, object] = {}
        if self.template is not None:
            files = {"userConfigTemplate": self.template, "userConfigSchema": SCHEMA}
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in given.items())
        text += "endpoint:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in files.items())
        return text + "  config:\n" + textwrap.indent(self.configuration, "    ")

    def apply(self, image: Image | None = None) -> None:
        """Installs it, or changes what differs. Another image makes the Deployment roll over to it."""
        Helm(self.cluster).run(
            *("upgrade", "--install", self.name, CHART, "--namespace", self.namespace, "--values", "-"),
            # What a test has changed by hand is put back.
            "--force-conflicts",
            input=self.values(image),
        )

    def start(self, wait: bool = True) -> KubernetesEndpoint:
        """Installs it, and waits until the interchange calls it online."""
        names = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in self.namespaces]
        self.cluster.apply(*names)
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"{self.name}-credentials", "namespace": self.namespace},
                "stringData": {
                    "GLOBUS_COMPUTE_CLIENT_ID": self.client.id,
                    "GLOBUS_COMPUTE_CLIENT_SECRET": self.client.secret,
                },
            },
        )
        self.apply()
        if wait:
            self.wait_online()
        return self

    @property
    def namespaces(self) -> list[str]:
        """The agent's namespace, and its workers'."""
        return [self.namespace, self.workers]

    def wait_for_roll_out(self) -> None:
        """Returns once the Deployment's pod is ready and none of an earlier one is there."""
        where = ["--namespace", self.namespace, "--timeout=150s"]
        self.cluster.kubectl("rollout", "status", "deployment", self.name, *where, timeout=160)

    def wait_for_state(self, state: str, pod: str, timeout: float = 90) -> None:
        """Returns once an agent's pod calls itself so: `running`, `standby`..."""

        def is_so() -> bool:
            try:
                return self.status(pod)["state"] == state
            except KubectlError:
                return False

        self.cluster.wait(is_so, f"{pod} to be {state}", timeout)

    def wait_online(self, timeout: float = 90) -> None:
        """Returns once the interchange calls it online."""
        try:
            self.cluster.wait(lambda: self.service_status() == "online", f"{self.name} to be online", timeout)
        except ProcessError as error:
            raise ProcessError(f"{error}\nThe agent's log:\n{self.logs()[-4000:]}") from None

    def wait_offline(self, timeout: float = 90) -> None:
        """Returns once the interchange calls it offline."""
        self.cluster.wait(lambda: self.service_status() == "offline", f"{self.name} to be offline", timeout)

    @property
    def id(self) -> str:
        """The id that the interchange gave it at its first start."""
        if self._id is None:
            self._id = self.status()["endpoint_id"]
        return self._id

    def service_status(self) -> str:
        """What the interchange says of it: online, offline, or unknown before it is registered."""
        try:
            path = f"{self.interchange.url}/v2/endpoints/{self.id}/status"
            if self._access_token is None:
                self._access_token = access_token(self.interchange, self.client)
            answer = http.fetch("GET", path, headers={"Authorization": f"Bearer {self._access_token}"})
        except (OSError, KubectlError, http.HttpError, KeyError):
            return "unknown"
        return answer.get("status", "unknown")

    def agents(self) -> list[dict]:
        """The agent's pods: one, unless one is about to end."""
        return self.cluster.pods(self.namespace)

    def agent(self) -> str:
        """The name of the agent's pod that is not about to end. KubectlError if there is none."""
        living = [pod for pod in self.agents() if "deletionTimestamp" not in pod["metadata"]]
        if not living:
            raise KubectlError(f"no pod of the Deployment {self.name} is there")
        return living[-1]["metadata"]["name"]

    def run(self, *arguments: str, pod: str | None = None) -> str:
        """What a command of the `endpoint` program prints, run in the agent's pod, or in the one that is named."""
        return self.cluster.kubectl(
            "exec", pod or self.agent(), "--namespace", self.namespace, "--", "/usr/local/bin/endpoint", *arguments
        )

    def status(self, pod: str | None = None) -> dict:
        """What `endpoint status --json` prints, in the agent's pod or the one that is named."""
        return json.loads(self.run("status", self.name, "--json", pod=pod))

    def says(self, words: str) -> bool:
        """Whether the words stand anywhere in what `endpoint status` tells people."""
        return words in self.run("status", self.name)

    def logs(self) -> str:
        """What the agent's pod has logged, and its predecessor in the same pod if there was one."""
        name = self.agent()
        before = self.cluster.run_kubectl("logs", name, "--namespace", self.namespace, "--previous").stdout
        return before + self.cluster.kubectl("logs", name, "--namespace", self.namespace)

    def pods(self) -> list[dict]:
        """The worker pods that are there, those about to end included."""
        return self.cluster.pods(self.workers)

    def running_pod(self) -> str:
        """The name of the one worker pod, once a task runs in it."""
        self.cluster.wait(lambda: self.status()["tasks_running"] >= 1, "a task to run", 120)
        (pod,) = [pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]
        return pod["metadata"]["name"]

    def processes_of(self, pod: str, namespace: str | None = None) -> list[processes.Seen]:
        """The processes of a pod's containers as this machine sees them, its sandbox left out; of a worker pod, unless a
        namespace is named."""
        uid = self.cluster.get("pod", pod, namespace or self.workers)["metadata"]["uid"]
        seen = [processes.look_at(pid) for pid in ground.members(uid)]
        return [each for each in seen if each is not None and "/pause" not in each.command]

    def agent_process(self) -> int:
        """The agent's process, as this machine sees it."""
        seen = self.processes_of(self.agent(), self.namespace)
        (agent,) = [each.pid for each in seen if "endpoint start" in each.command]
        return agent

    def link_address(self) -> str:
        """Where its workers dial."""
        service = self.cluster.get("service", self.name, self.namespace)["spec"]
        return f"tls:{service['clusterIP']}:{service['ports'][0]['port']}"

    def wait_for_pods(self, count: int, timeout: float = 60) -> list[dict]:
        """The worker pods, once there are so many."""

        def right() -> list[list[dict]]:
            pods = self.pods()
            return [pods] if len(pods) == count else []

        return self.cluster.wait(right, f"{count} worker pods of {self.name}", timeout)[0]

    def secrets(self) -> list[str]:
        """The names of the Secrets that blocks have."""
        return [each["metadata"]["name"] for each in self.cluster.get("secrets", namespace=self.workers)["items"]]

    def delete(self, wait: bool = True, timeout: float = 150) -> None:
        """Removes all of it: the agent at once, and with the anchor its workers."""
        self.cluster.kubectl(
            "delete",
            "namespace",
            *self.namespaces,
            "--ignore-not-found",
            f"--wait={str(wait).lower()}",
            timeout=timeout,
        )

    def remove_left(self) -> None:
        """Removes what a run that was killed has left of it, and returns when that is gone. No kubelet would say that
        pods have ended which were on hollow nodes: those nodes go first."""
        self.cluster.kubectl("delete", "node", "--selector", f"{HOLLOW}=yes", "--wait=false")
        forced = ["--force", "--grace-period=0", "--wait=false"]
        self.cluster.run_kubectl("delete", "pods", "--all", "--namespace", self.workers, *forced, timeout=600)
        self.delete(timeout=600)
