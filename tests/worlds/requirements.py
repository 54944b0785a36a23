"""What the extras of skewless bring, and processes that do without the rest."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Packages of a server require them, but it does not: see the Makefile, which leaves them out of the image.
UNUSED_BY_SERVER = {"narwhals", "nvidia-nccl-cu12", "scipy", "valkey"}
# Hides modules as if their packages were not installed.
_WITHOUT = """
import sys

class Hidden:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*context)
        return (each for each in found if not each.name.startswith("skewless-"))

HIDDEN = set({modules!r})
sys.meta_path[:] = map(Hidden, sys.meta_path)
"""


def requirements_of(*extras: str) -> list[Requirement]:
    """Return the requirements of extras in pyproject.toml; "" means those outside of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return [Requirement(line) for extra in extras for line in lists[extra]]


def closure_of(roots: Iterable[Requirement]) -> set[str]:
    """Return the names of the packages that requirements bring, with their own, as far as they are installed here.

    Our plug-ins bring theirs, and are not named.
    """
    names: set[str] = set()
    todo = [requirement for requirement in roots if requirement.name != "skewless"]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name == "skewless" or (name in names and not requirement.extras):
            continue
        names.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        todo += [one for one in map(Requirement, lines) if _applies(one, extras)]
    return {name for name in names if not name.startswith("skewless-")}


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def locked_in(path: Path) -> set[str]:
    """Return the names in a file of locked requirements."""
    return set(re.findall(r"^([a-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE))


def main_of_a_server() -> str:
    """Return a program that is the command line where only a server's own packages are installed."""
    wanted = closure_of(requirements_of("", "serve")) - UNUSED_BY_SERVER
    return hide_all_but(wanted) + "from skewless.cli import main; main()"


def hide_all_but(packages: set[str]) -> str:
    """Return the begin of a program that finds the core and some packages, and no plug-in."""
    modules = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & {*packages, "skewless"}
    ]
    return _WITHOUT.replace("{modules!r}", repr(sorted(modules)))
