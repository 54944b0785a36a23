"""The images of infra/deploy/image, built once for each state of the sources, and containers of them.

No registry is asked: mmdebstrap makes the base image from Debian's packages, buildah builds on it, podman runs the
result with runc. All of it is kept under /var/tmp, for all checkouts; delete that folder to begin again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.worlds.waiting import eventually

ROOT = Path(__file__).parents[3]
CONTAINERFILE = ROOT / "infra" / "deploy" / "image" / "Containerfile"
CACHE = Path("/var/tmp/skewless-containers")  # noqa: S108 - root's, and too large for a folder in memory
_TOOLS = ("mmdebstrap", "buildah", "podman", "runc")
_SOURCES = ("infra", "serving", "skewless", "tools", "training", "validation")
_BASE_PACKAGES = "python3,python3-venv,ca-certificates,libgomp1,binutils,tzdata"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UID = 10001
# What the policy "restricted" of Kubernetes asks for, and a read-only root.
HARDENED = (
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A running container in the network of this machine."""

    name: str

    def logs(self) -> str:
        """Return what it wrote to stdout and stderr so far."""
        done = subprocess.run(_podman("logs", self.name), capture_output=True, text=True, check=True, env=environment())
        return done.stdout + done.stderr

    def is_running(self) -> bool:
        return self.inspect("{{.State.Running}}") == "true"

    def inspect(self, template: str) -> str:
        """Return a fact of ``podman inspect``."""
        return podman("inspect", "--format", template, self.name)

    def stop(self, grace_s: int = 20) -> int:
        """Send SIGTERM, and SIGKILL after the grace; return the exit code: 137 if the grace was too short."""
        podman("stop", "--time", str(grace_s), self.name)
        return int(self.inspect("{{.State.ExitCode}}"))


def podman(*arguments: str) -> str:
    """Return the output of a command of podman.

    Raises:
        AssertionError: it failed; has the message.
    """
    done = subprocess.run(_podman(*arguments), capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.strip()


def build_image(target: str) -> str:
    """Return the name of the image of a target, ``server`` or ``jobs``; it is built if the sources have changed."""
    if missing := [name for name in _TOOLS if shutil.which(name) is None]:
        pytest.skip(f"no {missing[0]} on this machine: `apt-get install {' '.join(_TOOLS)}` brings it")
    if os.geteuid() != 0:
        pytest.skip("images are built and run as root here: run `make soak` as root")
    name = f"localhost/skewless-{target}:{_digest()}"
    CACHE.mkdir(mode=0o700, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _exists(name):
            _build(target, name)
    return name


@contextmanager
def running_container(
    image: str,
    *arguments: str,
    project: Path | None = None,
    settings: Mapping[str, str] | None = None,
    options: Sequence[str] = HARDENED,
) -> Iterator[Container]:
    """Run an image in the background, as its own user; the container is removed at the end.

    Args:
        arguments: of ``skewless``; none: the image's own.
        project: folder that is mounted as the project; it is given to the image's user.
        settings: environment of the process.
        options: of ``podman run``.
    """
    name = f"skewless-{uuid.uuid4().hex[:12]}"
    mounts = []
    if project is not None:
        give_to_user(project)
        mounts = [f"--volume={project}:/srv/project"]
    variables = [f"--env={key}={value}" for key, value in (settings or {}).items()]
    podman("run", "--detach", "--name", name, *options, *mounts, *variables, image, *arguments)
    try:
        yield Container(name=name)
    finally:
        podman("rm", "--force", "--time", "1", name)


def run_command(image: str, *arguments: str, project: Path, settings: Mapping[str, str] | None = None) -> str:
    """Return what a command of ``skewless`` wrote in a container; it must succeed."""
    give_to_user(project)
    variables = [f"--env={key}={value}" for key, value in (settings or {}).items()]
    mount = f"--volume={project}:/srv/project"
    return podman("run", "--rm", *HARDENED, mount, *variables, image, *arguments)


def give_to_user(folder: Path) -> None:
    """Make a folder writable for the user of the image; a mount needs no rights on the folders above it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, UID, UID)


def wait_for(url: str) -> None:
    """Wait until a server answers with 200."""
    eventually(lambda: _status(url) == 200)


def environment() -> dict[str, str]:
    """Return the environment of buildah and podman: their storage and settings are ours alone."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    storage, containers = CACHE / "storage.conf", CACHE / "containers.conf"
    _write(storage, f'[storage]\ndriver = "overlay"\nrunroot = "{CACHE}/run"\ngraphroot = "{CACHE}/graph"\n')
    # Limits can often not be raised, and runc refuses to try: it is told those of this process.
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    ulimits = [f'"{name}={_hard_limit(kind)}:{_hard_limit(kind)}"' for name, kind in limits.items()]
    engine = '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
    _write(containers, f'[containers]\ndefault_ulimits = [{", ".join(ulimits)}]\nnetns = "host"\n{engine}')
    return {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }


def _podman(*arguments: str) -> list[str]:
    return ["podman", *arguments]


def _build(target: str, name: str) -> None:
    base = f"localhost/skewless-base:{hashlib.sha256(_BASE_PACKAGES.encode()).hexdigest()[:12]}"
    if not _exists(base):
        archive = CACHE / "base.tar"
        include = ["--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*", f"--include={_BASE_PACKAGES}"]
        mmdebstrap = ["mmdebstrap", "--quiet", *include, "trixie", str(archive)]
        subprocess.run(mmdebstrap, check=True)
        podman("import", str(archive), base)
        archive.unlink()
    command = ["buildah", "bud", "--isolation=chroot", "--network=host", "--pull=never", "--layers", "--format=docker"]
    # A registry behind a proxy has a certificate of its own.
    mounts = [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.is_file() else []
    files = [f"--build-arg=BASE={base}", f"--target={target}", f"--tag={name}", f"--file={CONTAINERFILE}", str(ROOT)]
    built = subprocess.run(
        [*command, *mounts, *files], capture_output=True, text=True, check=False, env=environment(), cwd=ROOT
    )
    assert built.returncode == 0, (built.stdout[-3000:], built.stderr[-3000:])


def _digest() -> str:
    """Return a digest of all files that the Containerfile copies."""
    files = [ROOT / "pyproject.toml", CONTAINERFILE, *CONTAINERFILE.parent.glob("*.txt")]
    for folder in _SOURCES:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    state = hashlib.sha256()
    for path in sorted(files):
        state.update(f"{path.relative_to(ROOT)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:16]


def _exists(image: str) -> bool:
    return subprocess.run(_podman("image", "exists", image), check=False, env=environment()).returncode == 0


def _hard_limit(kind: int) -> int:
    limit = resource.getrlimit(kind)[1]
    return 1_048_576 if limit == resource.RLIM_INFINITY else limit


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        temporary = path.with_suffix(f".{uuid.uuid4().hex}")
        temporary.write_text(text)
        temporary.replace(path)


def _status(url: str) -> int:
    try:
        with urlopen(url, timeout=5) as reply:  # noqa: S310 - an address of ours
            return int(reply.status)
    except (URLError, OSError):
        return 0
