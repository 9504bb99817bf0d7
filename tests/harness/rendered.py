"""What Helm renders, to be asked about."""

from __future__ import annotations

from pathlib import Path

import yaml

from harness.kubernetes.helm import Helm, HelmError


class Rendered(dict):
    """Objects, by kind, name and namespace."""

    @classmethod
    def by(cls, helm: Helm, chart: Path, values: dict | None, *arguments: str, release: str = "lab") -> Rendered:
        """A chart as a release in the namespace `here`. HelmError if it is refused."""
        # Helm 3 takes an old Kubernetes for granted if it is built from its module alone.
        where = ["--namespace", "here", "--kube-version", "1.34"]
        command = ["template", release, chart, *where, *arguments, "--values", "-"]
        text = helm.run(*command, input=yaml.safe_dump(values or {}))
        objects = [thing for thing in yaml.safe_load_all(text) if thing]
        keys = [(thing["kind"], thing["metadata"]["name"], thing["metadata"].get("namespace", "")) for thing in objects]
        assert len(set(keys)) == len(keys), "an object is made twice"
        return cls(zip(keys, objects, strict=True))

    def one(self, kind: str, name: str | None = None) -> dict:
        """The only object of a kind, or of that name."""
        (found,) = [thing for key, thing in self.items() if key[0] == kind and name in (None, key[1])]
        return found

    def kinds(self) -> set[str]:
        return {key[0] for key in self}

    def pod(self) -> dict:
        """What the Deployment says of the agent's pod."""
        return self.one("Deployment")["spec"]["template"]

    def agent(self) -> dict:
        """The agent's container."""
        return self.pod()["spec"]["containers"][0]

    def environment(self) -> dict[str, str | None]:
        """The plain variables of the agent's container."""
        return {each["name"]: each.get("value") for each in self.agent()["env"]}

    def file(self, name: str) -> str:
        """A file of the endpoint's folder."""
        (files,) = [
            thing["data"] for key, thing in self.items() if key[0] == "ConfigMap" and "-configuration" in key[1]
        ]
        return files[name]

    def configuration(self) -> dict:
        """Its config.yaml."""
        return yaml.safe_load(self.file("config.yaml"))

    def engine(self) -> dict:
        """The engine that the template gives, read as the agent reads it once its signs are gone."""
        lines = self.file("user_config_template.yaml.j2").splitlines()
        assert (lines[0], lines[-1]) == ("{% raw %}", "{% endraw %}")
        return yaml.safe_load("\n".join(lines[1:-1]))["engine"]


def refusal(helm: Helm, chart: Path, values: dict) -> str:
    """What Helm says of values that a chart refuses. AssertionError if it takes them."""
    try:
        Rendered.by(helm, chart, values)
    except HelmError as error:
        return str(error)
    raise AssertionError("the chart takes these values")


def faults(said: str) -> list[str]:
    """What a schema has against values, of all that Helm says: a line for each place."""
    return [line.strip() for line in said.splitlines() if line.strip().startswith("- at '/")]
