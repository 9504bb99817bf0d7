"""An API server that will not have the pods: webhooks and policies of administrators."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator

import pytest
from harness import ports
from harness.functions import double
from harness.kubernetes import addresses
from harness.kubernetes.endpoint import IDLE

ON_PODS = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


class Webhook:
    """An admission webhook that refuses every pod of a namespace until it is lifted, or is a server that is away."""

    def __init__(self, cluster, namespace: str, away: bool = False):
        self.cluster = cluster
        self.name = f"{namespace}.waypost.test"
        self.asked = threading.Event()
        port = ports.free_port()
        certificate, key = cluster.certificates.server(f"webhook-{port}", addresses.HOST)
        self._server = None if away else self._serve(port, certificate, key)
        cluster.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": self.name},
                "webhooks": [
                    {
                        "name": self.name,
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                        "failurePolicy": "Fail",
                        "timeoutSeconds": 5,
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                        "rules": ON_PODS,
                        "clientConfig": {
                            "url": f"https://{addresses.HOST}:{port}/",
                            "caBundle": base64.b64encode(cluster.certificates.file("ca.crt").read_bytes()).decode(),
                        },
                    }
                ],
            }
        )

    def _serve(self, port: int, certificate, key) -> http.server.ThreadingHTTPServer:
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = {"code": 403, "message": "the hall is closed"}
                answer = {"uid": review["request"]["uid"], "allowed": False, "status": status}
                body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": answer})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())
                asked.set()

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer((addresses.HOST, port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def lift(self) -> None:
        """Refuses nothing any more."""
        self.cluster.kubectl("delete", "validatingwebhookconfiguration", self.name, "--ignore-not-found")

    def end(self) -> None:
        self.lift()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
def make_webhook(cluster) -> Iterator:
    made: list[Webhook] = []

    def make(namespace: str, **options: object) -> Webhook:
        made.append(Webhook(cluster, namespace, **options))
        # The API server reads of it a moment later.
        probe = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": namespace},
            "spec": {"containers": [{"name": "probe", "image": "none"}]},
        }
        create = ["create", "--dry-run=server", "--filename", "-"]
        cluster.wait(
            lambda: "webhook" in cluster.run_kubectl(*create, input=json.dumps(probe)).stderr,
            "the webhook to be in force",
        )
        return made[-1]

    yield make
    for webhook in made:
        webhook.end()


@pytest.mark.parametrize(
    ("away", "words"), [(False, "the hall is closed"), (True, "failed calling webhook")], ids=["refuses", "is-away"]
)
def test_a_webhook_that_refuses_pods_is_told_in_its_own_words_and_the_task_runs_once_it_is_lifted(
    shared, make_engine, make_executor, make_webhook, away, words
):
    webhook = make_webhook(shared.workers, away=away)
    # Who refuses may change its mind: so long is waited for that.
    executor = make_executor(shared, make_engine(shared, scheduling_timeout=4, engine_options=IDLE))
    first = executor.submit(double, 21)
    shared.cluster.wait(lambda: shared.says(words), "the status to say it")
    told = str(first.exception(timeout=120))
    assert words in told
    assert "webhook" in told
    webhook.lift()
    assert executor.submit(double, 4).result(timeout=120) == 8
    shared.wait_for_pods(0)


def test_a_policy_that_refuses_pods_for_what_they_are_is_told_at_once(shared, make_engine, make_executor):
    name = f"{shared.workers}.waypost.test"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shared.workers}},
                "resourceRules": ON_PODS,
            },
            "validations": [
                {
                    "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                    "message": "every pod names its team",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": shared.workers},
        "spec": {"containers": [{"name": "probe", "image": "none"}]},
    }
    cluster = shared.cluster
    cluster.apply(policy, binding)
    try:
        create = ["create", "--dry-run=server", "--filename", "-"]
        refused = lambda: "its team" in cluster.run_kubectl(*create, input=json.dumps(probe)).stderr  # noqa: E731
        cluster.wait(refused, "the policy to be in force")
        said = str(make_executor(shared, make_engine(shared)).submit(double, 21).exception(timeout=60))
        assert "every pod names its team" in said
        labelled = make_engine(shared, labels={"team": "blue"}, engine_options=IDLE)
        assert make_executor(shared, labelled).submit(double, 21).result(timeout=90) == 42
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.kubectl("delete", kind, name)
    shared.wait_for_pods(0)
