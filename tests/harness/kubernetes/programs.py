"""Kubernetes and what it stands on, built from the Go modules that `modules/` pins, and kept in the user's cache.

Kubernetes, its node's programs, Helm and what keeps to NetworkPolicies are modules of their own, since each needs its own
versions of the libraries.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.keeper import Keeper
from harness.kubernetes import addresses

MODULES = Path(__file__).resolve().parent / "modules"

HOW_TO_GET_GO = """\
Go is needed to build Kubernetes for the tests, and was not found. To get it:
    sudo apt-get install golang-go     (any version: the one that is needed is then fetched as a Go module)
    or see https://go.dev/doc/install"""


@dataclass(frozen=True)
class Program:
    module: str
    package: str
    name: str = ""

    @property
    def file(self) -> str:
        return self.name or self.package.rpartition("/")[2]


_KUBERNETES = "k8s.io/kubernetes/cmd"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_NETWORK = "github.com/containernetworking/plugins/plugins"

HELM = Program("helm", "helm.sh/helm/v4/cmd/helm")

CLUSTER = [
    *(
        Program("kubernetes", f"{_KUBERNETES}/{name}")
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
    ),
    *(Program("node", f"{_CONTAINERD}/{name}") for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    *(Program("node", f"{_NETWORK}/{name}") for name in ("main/bridge", "main/loopback", "ipam/host-local")),
    Program("node", "go.etcd.io/etcd/server/v3", "etcd"),
    HELM,
]
"""What a cluster runs, and what installs into it."""
HELM_3 = Program("helm3", "helm.sh/helm/v3/cmd/helm")
"""The Helm before, which many have."""
NETWORK_POLICIES = Program("policies", "sigs.k8s.io/kube-network-policies/cmd", "kube-network-policies")
"""What makes a node keep to NetworkPolicies."""
KUBEMARK = Program("kubernetes", f"{_KUBERNETES}/kubemark")
"""Hollow nodes, for scale."""


def pinned(module: str, dependency: str) -> str:
    """The version that a module pins, such as v1.36.3."""
    text = (MODULES / module / "go.mod").read_text()
    found = re.search(rf"^\s*{re.escape(dependency)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{MODULES / module / 'go.mod'} pins no {dependency}")
    return found.group(1)


def go() -> str | None:
    """A Go command, of whatever version, or None."""
    return shutil.which("go", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin:/usr/lib/go/bin")


def _wanted_go() -> tuple[int, ...]:
    versions = [re.search(r"^go (\S+)", pins.read_text(), re.MULTILINE).group(1) for pins in MODULES.glob("*/go.mod")]
    return max(tuple(int(part) for part in version.split(".")) for version in versions)


def toolchain() -> str:
    """A Go command that is new enough. An older one fetches it as the module golang.org/toolchain."""
    command = go()
    if command is None:
        raise FileNotFoundError(HOW_TO_GET_GO)
    wanted = _wanted_go()
    # "go version go1.26.8 linux/amd64": unlike `go env GOVERSION` it does not depend on the folder or on GOTOOLCHAIN.
    words = subprocess.run(
        [command, "version"],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "GOTOOLCHAIN": "local"},
    ).stdout.split()
    have = tuple(int(part) for part in re.findall(r"\d+", words[2])[:3])
    if have >= wanted:
        return command
    system, architecture = words[3].split("/")
    version = ".".join(map(str, wanted))
    module = f"golang.org/toolchain@v0.0.1-go{version}.{system}-{architecture}"
    try:
        folder = download(command, module)
    except RuntimeError as error:
        raise RuntimeError(f"Go {version} is needed, {words[2]} is here, and {error}") from None
    # The files of a module are not executable.
    for program in [*(folder / "bin").iterdir(), *(folder / "pkg" / "tool").rglob("*")]:
        if program.is_file() and not os.access(program, os.X_OK):
            program.chmod(0o755)
    return str(folder / "bin" / "go")


def download(go_command: str, module: str) -> Path:
    """The folder of a Go module, `PATH@VERSION`, fetched if it is not there. RuntimeError if it can not be."""
    fetched = subprocess.run(
        [go_command, "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GO111MODULE": "on"},
        timeout=600,
    )
    answer = json.loads(fetched.stdout or "{}")
    if fetched.returncode != 0 or "Dir" not in answer:
        raise RuntimeError(f"{module} could not be fetched: {answer.get('Error') or fetched.stderr}")
    return Path(answer["Dir"])


def _stamp(module: str) -> str:
    parts = [(MODULES / module / name).read_bytes() for name in ("go.mod", "go.sum")]
    return hashlib.sha256(b"\0".join([*parts, _link_flags(module).encode()])).hexdigest()[:16]


def _link_flags(module: str) -> str:
    flags = "-s -w"
    if module == "kubernetes":
        # Without these the API server calls itself v0.0.0-master.
        version = pinned(module, "k8s.io/kubernetes")
        major, minor = version.lstrip("v").split(".")[:2]
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += "".join(f" -X {package}.{name}={value}" for name, value in values.items())
    return flags


def path(program: Program) -> Path:
    """Where a program is, or will be once `build` has made it. Other pins mean another folder."""
    return addresses.cache() / "programs" / f"{program.module}-{_stamp(program.module)}" / program.file


def missing(wanted: list[Program]) -> list[Program]:
    """Those of the programs that are not built."""
    return [program for program in wanted if not path(program).exists()]


def build(keeper: Keeper, wanted: list[Program]) -> None:
    """Builds what is not there. Several minutes the first time, most of it for the first program."""
    if not missing(wanted):
        return
    command = toolchain()
    addresses.cache().mkdir(parents=True, exist_ok=True)
    with (addresses.cache() / "programs.lock").open("w") as lock:
        # Whoever comes second finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program in missing(wanted):
            final = path(program)
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = final.with_name(f".{final.name}.partial")
            keeper.run(
                "kubernetes-build",
                [
                    command,
                    "build",
                    "-trimpath",
                    "-ldflags",
                    _link_flags(program.module),
                    "-o",
                    partial,
                    program.package,
                ],
                directory=MODULES / program.module,
                environment={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
                timeout=1800,
            )
            partial.rename(final)
