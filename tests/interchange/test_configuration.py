"""An interchange whose options all stand in the file that --config names."""

from __future__ import annotations

import json
import os
import subprocess

from harness import checkout, http, ports
from harness.interchange import Client, without_proxies
from interchange.calls import COMPUTE_SCOPE, oauth


class Configured:
    """As much of an interchange as `oauth` asks for."""

    def __init__(self, url):
        self.url = url


def test_it_serves_with_nothing_but_a_file(keeper, broker, virtual_host):
    folder = keeper.temporary_folder("configured")
    where = virtual_host()
    port = ports.free_port()
    options = {
        "listen": f"127.0.0.1:{port}",
        "database": f"sqlite://{folder}/interchange.db",
        "broker-url": broker.url(where),
        "broker-management-url": broker.management_url,
        "key-file": f"{folder}/interchange.key",
        "public-url": "https://compute.example.org/below",
        "token-lifetime": 1234,
        "task-queue-type": "classic",
        "log-format": "json",
    }
    file = folder / "interchange.toml"
    # A text or number of JSON is one of TOML.
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
    environment = {
        name: value
        for name, value in without_proxies(dict(os.environ)).items()
        if not name.startswith("WAYPOST_INTERCHANGE_")
    }
    binary = checkout.binary("interchange")
    process = keeper.start("configured", [binary, "serve", "--config", file], environment=environment, directory=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: http.answers_with(f"{url}/readyz"), "ready")
        command = [binary, "client", "create", "--config", file, "--name", "by file", "--json"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
        made = json.loads(done.stdout)
        client = Client(made["client_id"], made["client_secret"])
        status, token = oauth(Configured(url), client, "token", grant_type="client_credentials", scope=COMPUTE_SCOPE)
        assert status == 200 and token["expires_in"] == 1234
        _, text = http.call("GET", f"{url}/.well-known/openid-configuration")
        told = json.loads(text)
        assert told["issuer"] == "https://compute.example.org/below"
        assert told["jwks_uri"] == "https://compute.example.org/below/jwk.json"
        assert json.loads(process.log.read_text().splitlines()[0])["message"]
    finally:
        process.stop()


def test_an_option_that_it_does_not_have_is_named(keeper):
    folder = keeper.temporary_folder("configured")
    file = folder / "interchange.toml"
    file.write_text('lissen = "127.0.0.1:1"\n')
    done = subprocess.run(
        [checkout.binary("interchange"), "serve", "--config", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "lissen" in done.stderr and str(file) in done.stderr
