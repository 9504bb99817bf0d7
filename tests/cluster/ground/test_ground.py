"""The cluster itself: what is in it reaches what it should, and it leaves nothing, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import checkout, http, ports, processes
from harness.endpoint import wait_for
from harness.keeper import Keeper
from harness.keeper_process import KEEPER_OF, MARK
from harness.kubernetes import addresses, ground, programs
from harness.kubernetes.cluster import Cluster
from harness.kubernetes.images import Builder

TESTS = Path(__file__).resolve().parents[2]

# Where a node's programs are known to write, if they are let.
PLACES = (
    "/run/containerd",
    "/run/netns",
    "/run/runc",
    "/run/xtables.lock",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/opt/containerd",
    "/opt/cni",
    "/opt/nri",
    "/etc/cni",
    "/etc/nri",
)


@pytest.fixture(scope="module")
def builder(keeper):
    programs.build(keeper, programs.CLUSTER)
    return Builder(keeper)


def machine() -> dict[str, object]:
    """What a cluster might change in this machine, as text to compare."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    own = [*ground._COVERED, *PLACES, addresses.cache()]
    links = {link["ifname"]: link.get("flags") for link in json.loads(said("ip", "-json", "link"))}
    parameters = [*ground._PARAMETERS, "net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"]
    return {
        "links": links,
        "routes": said("ip", "route"),
        # Whatever else runs on the machine may mount elsewhere meanwhile.
        "mounts": sorted(place for place in mounts if any(Path(place).is_relative_to(each) for each in own)),
        # Without counts of packets, which go on.
        "rules": said("nft", "--stateless", "list", "ruleset"),
        "parameters": {
            name: Path("/proc/sys", name).read_text() for name in parameters if Path("/proc/sys", name).exists()
        },
        "control groups": [str(group) for group in ground.control_groups() if group.exists()],
        "places": {place: sorted(os.listdir(place)) for place in PLACES if os.path.isdir(place)},
        "cache": sorted(name for name in os.listdir(addresses.cache()) if not name.endswith(".lock")),
    }


def left() -> list[processes.Seen]:
    return processes.with_environment(ground.CLUSTER, str(addresses.cache()))


STARTER = """
import json, signal, sys, time
# Whoever runs these tests in the background of a shell has it ignored, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness.keeper import Keeper
from harness.kubernetes.cluster import Cluster
keeper = Keeper(Path(sys.argv[2]))
cluster = Cluster(keeper).start(Path(sys.argv[3]))
cluster.kubectl("run", "sleeper", "--image=localhost/waypost-pause:1", "--image-pull-policy=Never")
cluster.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")
print(json.dumps({"mark": keeper.mark, "keeper": keeper.pid, "ground": cluster._ground.pid}), flush=True)
time.sleep(600)
"""


@pytest.fixture
def starter(builder, tmp_path):
    """A process of its own with a cluster and a pod in it."""
    before = machine()
    with (tmp_path / "starter.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(TESTS), str(tmp_path), str(builder.pause().archive)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    line = process.stdout.readline()
    assert line, (tmp_path / "starter.log").read_text()
    yield before, process, json.loads(line)
    process.kill()
    process.wait()


def all_is_gone(started: dict) -> bool:
    """Whether nothing of it runs, the process that clears up included."""
    marked = processes.with_environment(MARK, started["mark"]) + processes.with_environment(KEEPER_OF, started["mark"])
    seen = processes.look_at(started["ground"])
    return not marked and not left() and (seen is None or seen.is_zombie)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_cluster_whose_starter_ends(starter, number):
    before, process, started = starter
    assert machine() != before
    process.send_signal(number)
    wait_for(lambda: all_is_gone(started), "the end of every process", 90)
    assert machine() == before


def test_what_is_left_when_all_are_killed_at_once_is_cleared_by_the_next(starter, keeper, builder):
    before, process, started = starter
    for pid in (started["ground"], started["keeper"], process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert left() or any(group.exists() for group in ground.control_groups())
    with Keeper(checkout.STATE / "logs" / "cluster-again") as another:
        cluster = Cluster(another).start(builder.pause().archive)
        assert cluster.pods("default") == []
        with pytest.raises(TimeoutError, match=r"a cluster is running on this machine already.*process \d+"):
            ground.Ground(addresses.cache()).claim(os.getpid(), patience=0)
        cluster.end()
    assert not left()
    assert machine() == before


SERVER = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
ASK = """
import os, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=5, context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
    except Exception as error:
        print(type(error).__name__)
"""


def test_pods_services_and_this_machine_reach_each_other_and_nothing_else(keeper, builder, tmp_path):
    image = builder.python_with_sdk()
    cluster = Cluster(keeper).start(builder.pause().archive)
    cluster.import_image(image.archive)
    assert image.name in cluster.images()
    run = [f"--image={image.name}", "--image-pull-policy=Never", "--command", "--"]
    cluster.kubectl("run", "web", "--port=8000", "--expose", *run, "python3", "-c", SERVER)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    port = ports.free_port()
    here = keeper.start(
        "here", [sys.executable, "-m", "http.server", "--bind", addresses.HOST, str(port)], directory=tmp_path
    )
    here.wait_until(lambda: http.answers_with(f"http://{addresses.HOST}:{port}/"), "listening")
    pod = cluster.get("pod", "web")["status"]["podIP"]
    service = cluster.get("service", "web")["spec"]["clusterIP"]
    wait_for(lambda: http.answers_with(f"http://{service}:8000/"), "the service's answer to this machine")
    assert http.answers_with(f"http://{pod}:8000/")
    urls = [
        f"http://{addresses.HOST}:{port}/",
        f"http://{pod}:8000/",
        f"http://{service}:8000/",
        f"https://{addresses.FIRST_SERVICE}/version",
        f"https://{addresses.FIRST_SERVICE}/api/v1/secrets",
    ]
    answers = cluster.kubectl("exec", "web", "--", "python3", "-c", ASK, *urls).split()
    assert answers == ["200", "200", "200", "200", "403"]
    # A name of the world outside finds nobody to ask.
    assert cluster.kubectl("exec", "web", "--", "python3", "-c", ASK, "http://192.0.2.1/").split() == ["URLError"]
    cluster.end()
    assert not left()
