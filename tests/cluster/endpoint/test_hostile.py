"""What a task can do to the cluster and to other workers with everything that is in its pod: nothing."""

from __future__ import annotations

import base64

from harness.functions import by_value, double, leave_mark_and_wait


@by_value
def credentials():
    """Every file and variable of the pod that could be a credential."""
    import os

    places = ["/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount"]
    found = [place for place in places if os.path.exists(place)]
    link = {}
    for folder, _, names in os.walk("/waypost/link"):
        for name in names:
            try:
                with open(os.path.join(folder, name)) as file:
                    link[name] = file.read()
            except OSError as error:
                link[name] = type(error).__name__
    return {"accounts": found, "link": link, "environment": dict(os.environ)}


@by_value
def ask(urls, token):
    """The status that each address answers with, without a credential and with a token as bearer."""
    import ssl
    import urllib.error
    import urllib.request

    context = ssl._create_unverified_context()
    answers = {}
    for url in urls:
        for given in (None, token):
            request = urllib.request.Request(url)
            if given:
                request.add_header("Authorization", "Bearer " + given.strip())
            try:
                with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                    answers[f"{url} {'token' if given else 'nobody'}"] = (answer.status, answer.read().decode())
            except urllib.error.HTTPError as error:
                answers[f"{url} {'token' if given else 'nobody'}"] = (error.code, "")
    return answers


def test_nothing_in_a_worker_pod_opens_the_api_server(shared, make_engine, make_executor):
    executor = make_executor(shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 2}}))
    held = executor.submit(credentials).result(timeout=90)
    assert held["accounts"] == []
    assert "KUBERNETES_SERVICE_HOST" not in {name for name in held["environment"] if not name.startswith("KUBERNETES_")}
    api = "https://10.96.0.1"
    closed = [
        f"{api}{path}"
        for path in (
            "/api",
            "/api/v1/namespaces",
            "/api/v1/secrets",
            f"/api/v1/namespaces/{shared.workers}/secrets",
            f"/api/v1/namespaces/{shared.workers}/pods",
            f"/api/v1/namespaces/{shared.namespace}/secrets/{shared.name}-state",
        )
    ]
    token = held["link"].get("token", "none")
    answers = executor.submit(ask, [*closed, f"{api}/version", f"{api}/healthz"], token).result(timeout=60)
    for address, (status, _) in answers.items():
        wanted = (200, 401, 403) if address.split()[0].endswith(("/version", "/healthz")) else (401, 403)
        assert status in wanted, address
    shared.wait_for_pods(0)


@by_value
def dial_as(other):
    """Runs this pod's own worker again under the name of another block: its status, and what it said."""
    import subprocess
    import tempfile

    with open("/proc/1/cmdline") as file:
        command = file.read().split("\0")[:-1]
    command[command.index("--block") + 1] = other
    command[command.index("--working-directory") + 1] = tempfile.mkdtemp()
    command += ["--termination-log", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


def test_a_block_can_not_pass_for_another(shared, make_engine, make_executor, marks, with_marks):
    idle = {"job_status_kwargs": {"max_idletime": 3}}
    executor = make_executor(shared, make_engine(shared, max_blocks=2, engine_options=idle, **with_marks))
    gate = marks / "gate"
    steady = executor.submit(leave_mark_and_wait, "/marks", "steady", "/marks/gate", 200)
    shared.cluster.wait((marks / "steady").exists, "the first task to run", 90)
    (victim,) = [pod["metadata"]["name"] for pod in shared.pods()]
    # The pod of the first is busy, so that this runs in another.
    status, said = executor.submit(dial_as, victim).result(timeout=150)
    assert status == 4, said
    assert "token" in said
    assert not steady.done()
    gate.touch()
    assert steady.result(timeout=30) == "steady"
    assert victim in [pod["metadata"]["name"] for pod in shared.pods()]
    shared.wait_for_pods(0)


def test_the_agents_metrics_tell_a_worker_nothing_secret(shared, make_engine, make_executor, client):
    executor = make_executor(shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 2}}))
    agent = shared.cluster.get("pod", shared.agent(), shared.namespace)["status"]["podIP"]
    (answer, *_) = executor.submit(ask, [f"http://{agent}:9464/metrics"], "none").result(timeout=90).values()
    status, text = answer
    assert status in (200, 403, 404)
    state = shared.cluster.get("secret", f"{shared.name}-state", shared.namespace)["data"]
    assert client.secret not in text
    for name in ("token_key", "link_authority.pem"):
        assert state[name] not in text
    for line in base64.b64decode(state["link_authority.pem"]).decode().splitlines():
        assert line not in text
    assert executor.submit(double, 1).result(timeout=30) == 2
    shared.wait_for_pods(0)


def test_a_worker_pod_is_restricted(shared, make_engine, make_executor):
    executor = make_executor(shared, make_engine(shared, engine_options={"job_status_kwargs": {"max_idletime": 1}}))
    assert executor.submit(double, 1).result(timeout=90) == 2
    (pod,) = shared.pods()
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert [volume for volume in spec["volumes"] if "hostPath" in volume or "projected" in volume] == []
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context.get("runAsNonRoot", spec["securityContext"].get("runAsNonRoot")) is True
        assert container["resources"]["limits"]
    owners = pod["metadata"]["ownerReferences"]
    assert [(owner["kind"], owner["name"], owner["controller"]) for owner in owners] == [
        ("ConfigMap", f"{shared.name}-anchor", True)
    ]
    shared.wait_for_pods(0)
