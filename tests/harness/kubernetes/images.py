"""Images without a registry: from ordinary Dockerfiles, with buildah, on bases that are made here from Debian's packages.

Each is kept as an archive in the user's cache, named for all that went into it, so that it is made once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import checkout, environments
from harness.keeper import Keeper
from harness.kubernetes import addresses, programs
from harness.kubernetes.daemons import PAUSE

PACKAGES = ["buildah", "mmdebstrap", "ca-certificates"]

_KEPT = 4
"""How many versions of an image are kept."""


@dataclass(frozen=True)
class Image:
    """An image by its full name, and the archive in OCI's format that holds it."""

    name: str
    archive: Path

    @property
    def size(self) -> int:
        """Bytes of its compressed layers, as a registry would hold them."""
        return self.archive.stat().st_size


class Builder:
    """Builds images into the cache."""

    def __init__(self, keeper: Keeper):
        self.keeper = keeper
        self.folder = addresses.cache() / "images"

    def build(
        self,
        name: str,
        dockerfile: Path,
        context: Mapping[str, Path],
        base: Image | None = None,
        arguments: Mapping[str, str] | None = None,
        volumes: Sequence[tuple[Path, str]] = (),
        tag: str | None = None,
        stages: Mapping[str, Path] | None = None,
    ) -> Image:
        """The image `localhost/NAME:TAG` from a Dockerfile, made unless there is one of the same things.

        `context` names the files and folders of the build's context. `base` becomes the build argument BASE. A folder in
        `stages` takes the place of the Dockerfile's stage of that name.
        """
        given = dict(arguments or {})
        if base is not None:
            given["BASE"] = base.name
        parts = [dockerfile.read_bytes(), repr(sorted(given.items())).encode()]
        parts += [f"{place}:{_digest(path)}".encode() for place, path in sorted(context.items())]
        parts += [f"{place}:{_digest(path)}".encode() for path, place in volumes]
        parts += [f"{stage}={_digest(path)}".encode() for stage, path in sorted((stages or {}).items())]
        key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
        image = Image(f"localhost/{name}:{tag or key}", self.folder / f"{name}-{key}.tar")
        if image.archive.exists():
            os.utime(image.archive)
            return image
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not image.archive.exists():
                self._build(image, name, dockerfile, context, base, given, volumes, stages or {})
                self._forget_old(name)
        return image

    def _build(
        self,
        image: Image,
        name: str,
        dockerfile: Path,
        context: Mapping[str, Path],
        base: Image | None,
        arguments: Mapping[str, str],
        volumes: Sequence[tuple[Path, str]],
        stages: Mapping[str, Path],
    ) -> None:
        work = self.keeper.temporary_folder("image")
        folder = work / "context"
        folder.mkdir()
        for place, path in context.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, folder / place, symlinks=True)
            else:
                shutil.copy2(path, folder / place)
        storage = ["--root", str(work / "storage"), "--runroot", str(work / "run"), "--storage-driver", "vfs"]
        if base is not None:
            self._run(name, ["buildah", *storage, "pull", "--quiet", f"oci-archive:{base.archive}"])
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [f"--volume={path}:{place}:ro" for path, place in volumes]
        options += [f"--build-context={stage}={path}" for stage, path in stages.items()]
        build = ["bud", "--isolation=chroot", "--pull-never", f"--file={dockerfile}", f"--tag={image.name}"]
        self._run(name, ["buildah", *storage, *build, *options, str(folder)])
        partial = image.archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self._run(name, ["buildah", *storage, "push", "--quiet", image.name, f"oci-archive:{partial}:{image.name}"])
        partial.rename(image.archive)
        shutil.rmtree(work, ignore_errors=True)

    def _run(self, name: str, command: list[str]) -> None:
        self.keeper.run(f"image-{name}", command, timeout=900)

    def _forget_old(self, name: str) -> None:
        """Keeps the versions of an image that were used last. To be called under the lock."""
        prefix = f"{name}-"
        kept = [path for path in self.folder.glob(f"{prefix}*.tar") if len(path.stem) == len(prefix) + 12]
        for path in sorted(kept, key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            path.unlink(missing_ok=True)

    def root(self, name: str, variant: str, packages: Sequence[str], hook: str) -> Path:
        """A root file system of this machine's release of Debian, as a tar file. `hook` is a command of the shell that
        runs at the end, on this machine; `$1` is the folder of the root."""
        key = hashlib.sha256(repr((release(), variant, sorted(packages), hook)).encode()).hexdigest()[:12]
        archive = self.folder / "roots" / f"{name}-{key}.tar"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with (archive.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                partial = archive.with_suffix(".partial.tar")
                # Nothing is configured in a root that is only extracted, so the later hooks do not run.
                stage = "extract" if variant == "extract" else "customize"
                options = [f"--variant={variant}", f"--include={','.join(packages)}", f"--{stage}-hook={hook}"]
                self.keeper.run(f"root-{name}", ["mmdebstrap", *options, release(), str(partial)], timeout=900)
                partial.rename(archive)
        return archive

    def pause(self) -> Image:
        """The process that holds a pod's network: it sleeps, and reaps."""
        folder = Path(__file__).resolve().parent / "pause"
        program = self.folder / "pause"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = program.with_suffix(f".{os.getpid()}")
        self.keeper.run("pause", ["cc", "-Os", "-static", "-s", "-o", str(partial), str(folder / "pause.c")])
        partial.rename(program)
        name, _, tag = PAUSE.removeprefix("localhost/").partition(":")
        return self.build(name, folder / "Dockerfile", {"pause": program}, tag=tag)

    def network_policies(self) -> Image:
        """What makes a node keep to NetworkPolicies."""
        program = programs.NETWORK_POLICIES
        programs.build(self.keeper, [program])
        dockerfile = Path(__file__).resolve().parent / "policies" / "Dockerfile"
        return self.build(program.name, dockerfile, {program.name: programs.path(program)})

    def python(self) -> Image:
        """A stand-in for the public image python:3: `python`, `python3` and `pip` are there, and pip takes packages
        from the folder /wheels, for a build here reaches no package index."""
        configuration = "[global]\\nno-index = true\\nfind-links = /wheels\\nroot-user-action = ignore\\n"
        script = "; ".join(
            [
                "ln -s python3 /usr/bin/python",
                "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED",
                f'printf "{configuration}" > /etc/pip.conf',
                "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*",
            ]
        )
        packages = ["python3", "python3-pip", "ca-certificates"]
        hook = f"chroot \"$1\" sh -ec '{script}'"
        return self._from_root("python", self.root("python", "essential", packages, hook))

    def programs(self) -> Image:
        """A stand-in for the public image gcr.io/distroless/cc: the C library, certificates, and nothing to run."""
        packages = ["base-files", "libc6", "libgcc-s1"]
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        hook = f'mkdir -p "$1/etc/ssl/certs" && cp {certificates} "$1{certificates}"'
        return self._from_root("programs", self.root("programs", "extract", packages, hook))

    def python_with_sdk(self, version: str = checkout.SDK_VERSIONS[0]) -> Image:
        """An image as a user might have, with Python and the SDK and nothing of ours."""
        sdk = f"globus-compute-sdk=={version}"
        dockerfile = Path(__file__).resolve().parent / "python_with_sdk" / "Dockerfile"
        wheels = [(self.wheels(sdk), "/wheels")]
        return self.build("python-with-sdk", dockerfile, {}, self.python(), {"SDK": sdk}, wheels)

    def python_with_wheels(self, *requirements: str) -> Image:
        """Python alone, for pods that install packages before they work: pip finds these and what they need."""
        dockerfile = Path(__file__).resolve().parent / "python_with_wheels" / "Dockerfile"
        return self.build("python-with-wheels", dockerfile, {"wheels": self.wheels(*requirements)}, self.python())

    def agent(self) -> Image:
        """Our endpoint, by its own Dockerfile, with the programs that are built here in place of its first stage."""
        ours = {"endpoint": checkout.binary("endpoint"), "worker": checkout.static_worker()}
        return self._ours("endpoint", checkout.ROOT / "agent" / "Dockerfile", ours, self.programs())

    def worker(self) -> Image:
        """Our worker with Python and the SDK, in the same way."""
        ours = {"worker": checkout.static_worker()}
        wheels = [(self.wheels(f"globus-compute-sdk=={checkout.SDK_VERSIONS[0]}"), "/wheels")]
        return self._ours("worker", checkout.ROOT / "worker-image" / "Dockerfile", ours, self.python(), wheels)

    def interchange(self) -> Image:
        """Our interchange, in the same way."""
        ours = {"interchange": checkout.binary("interchange")}
        return self._ours("interchange", checkout.ROOT / "interchange" / "Dockerfile", ours, self.programs())

    def _ours(
        self,
        name: str,
        dockerfile: Path,
        programs: Mapping[str, Path],
        base: Image,
        volumes: Sequence[tuple[Path, str]] = (),
    ) -> Image:
        """An image of ours. Its programs are put where its stage `build` would have them, without their symbols."""
        stage = self.keeper.temporary_folder("programs")
        for folder in ("programs", "state"):
            (stage / folder).mkdir()
        for each, path in programs.items():
            self.keeper.run("strip", ["strip", "-o", stage / "programs" / each, path])
        return self.build(f"waypost-{name}", dockerfile, {}, base, volumes=volumes, stages={"build": stage})

    def _from_root(self, name: str, root: Path) -> Image:
        folder = Path(__file__).resolve().parent / "root"
        return self.build(f"waypost-base-{name}", folder / "Dockerfile", {"root.tar": root})

    def wheels(self, *requirements: str) -> Path:
        """A folder with packages from PyPI and what they need, for the Python of `python()`."""
        key = hashlib.sha256(repr((release(), platform.machine(), sorted(requirements))).encode()).hexdigest()[:12]
        folder = self.folder / "wheels" / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                python = environments.PythonEnvironment(self.folder / "pip", ["pip"])
                command = [python.make(self.keeper).python, "-m", "pip", "--disable-pip-version-check", "download"]
                self.keeper.run("wheels", [*command, "--quiet", "--dest", partial, *requirements], timeout=600)
                partial.rename(folder)
        return folder


def release() -> str:
    """The code name of this machine's Debian, such as bookworm: programs that are built here run on its libraries."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise FileNotFoundError("/etc/os-release names no release of Debian (VERSION_CODENAME)")


def _digest(path: Path) -> str:
    """Of a file's content and whether it is executable, or of all that is in a folder."""
    if path.is_dir():
        names = sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
        entries = [f"{each.relative_to(path)}:{_digest(each)}" for each in names]
        return hashlib.sha256("\n".join(entries).encode()).hexdigest()
    digest = hashlib.sha256(b"x" if os.access(path, os.X_OK) else b"-")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
