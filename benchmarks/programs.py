"""The two command lines, run in a process of their own: what is compared neither pays for nor profits from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_FEAST = "from feast.cli.cli import cli; cli()"
_SKEWLESS = "from skewless.cli import main; main()"
_TAIL = 2_000


class ProgramError(RuntimeError):
    """A program ended with an error."""


def run_feast(repo: Path, *arguments: str) -> None:
    """Run ``feast`` in a repo.

    Raises:
        ProgramError: it failed.
    """
    _run(_FEAST, ["--chdir", str(repo), *arguments], {"FEAST_USAGE": "False"})


def run_skewless(repo: Path, verb: str, *arguments: str, url: str = "", nice: int = 0) -> None:
    """Run ``skewless`` on a repo, with the Redis of a URL.

    Args:
        nice: by how much its priority is lowered.

    Raises:
        ProgramError: it failed.
    """
    environment = {"SKEWLESS_REDIS_URL": url} if url else {}
    _run(_SKEWLESS, [verb, *arguments, "--repo", str(repo)], environment, nice)


def _run(program: str, arguments: list[str], environment: dict[str, str], nice: int = 0) -> None:
    done = subprocess.run(
        [*(("nice", "-n", str(nice)) if nice else ()), sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise ProgramError(f"{' '.join(arguments)} failed:\n{done.stdout[-_TAIL:]}{done.stderr[-_TAIL:]}")
