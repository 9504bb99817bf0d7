"""What Helm renders, to be asked about."""

from __future__ import annotations

import yaml


class Rendered(dict):
    """Objects, by kind, name and namespace."""

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
