"""The chart's network policies, on a node that keeps to them."""

from __future__ import annotations

import sys
import time

import pytest
from harness import ports
from harness.functions import by_value
from harness.kubernetes import addresses
from harness.kubernetes.enforcement import enforced

METADATA = "169.254.169.254"
"""Where clouds tell a machine, and whoever asks from it, what it may do."""


@pytest.fixture
def metadata(cluster):
    """Something that answers there."""
    cluster.keeper.run("metadata", cluster.inside("ip", "address", "add", f"{METADATA}/32", "dev", "lo"))
    server = cluster.keeper.start(
        "metadata", cluster.inside(sys.executable, "-m", "http.server", "80", "--bind", METADATA)
    )
    yield METADATA, 80
    server.kill()
    cluster.keeper.run("metadata", cluster.inside("ip", "address", "del", f"{METADATA}/32", "dev", "lo"))


@by_value
def reach(targets):
    """Which of these addresses take a connection."""
    import socket

    def answers(target):
        try:
            socket.create_connection(target, timeout=2).close()
        except OSError:
            return False
        return True

    return {name: answers(tuple(target)) for name, target in targets.items()}


@by_value
def listen(port, seconds):
    """Takes connections at all addresses."""
    import socket
    import time

    with socket.create_server(("", port)):
        time.sleep(seconds)


def test_workers_reach_what_they_may_and_nobody_reaches_them(
    shared, cluster, builder, interchange, make_engine, make_executor, metadata
):
    one_task_each = {"max_workers_per_node": 1, "job_status_kwargs": {"max_idletime": 30}}
    executor = make_executor(shared, make_engine(shared, engine_options=one_task_each, max_blocks=2))
    listening = executor.submit(listen, 4444, 90)
    (listener,) = shared.wait_for_pods(1)
    shared.running_pod()
    listener = cluster.get("pod", listener["metadata"]["name"], shared.workers)["status"]["podIP"]
    agent = cluster.get("pod", shared.agent(), shared.namespace)["status"]["podIP"]
    open_to_workers = {"the agent": (agent, 5800), "the world": (addresses.HOST, interchange.port)}
    closed = {
        "the agent's metrics": (agent, 9464),
        "the API server": (addresses.FIRST_SERVICE, 443),
        "the API server by its own address": (addresses.NODE, addresses.API_PORT),
        "the cloud's metadata": metadata,
        "another worker": (listener, 4444),
    }
    targets = open_to_workers | closed

    def wait_until_reached(wanted):
        """Connections are tried until it is so: what was told to the kernel holds a moment later."""
        deadline = time.monotonic() + 60
        while (reached := executor.submit(reach, targets).result(timeout=90)) != wanted and time.monotonic() < deadline:
            pass
        assert reached == wanted

    wait_until_reached(dict.fromkeys(targets, True))
    assert ports.answers(4444, address=listener)
    with enforced(cluster, builder):
        wait_until_reached({name: name in open_to_workers for name in targets})
        assert not ports.answers(4444, timeout=2, address=listener)
        # The kubelet goes on asking the agent, and tasks go on.
        assert shared.status()["state"] == "running"
        assert executor.submit(pow, 2, 3).result(timeout=60) == 8
    assert not listening.done()
