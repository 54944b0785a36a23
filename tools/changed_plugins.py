"""Names the plug-ins whose tests have to run: python -m tools.changed_plugins prints the folders of their tests.

A plug-in has changed if a file of its folder, or of a port that its pyproject.toml lists, differs from the branch that
the work began at: ``origin/main``, or the commit before the last where the checkout is that branch.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BASES = ("origin/main", "HEAD~1")


def main() -> None:
    """Print the folders, or with ``--all`` those of all plug-ins."""
    files = None if "--all" in sys.argv[1:] else changed_files()
    print(*(folder.relative_to(ROOT).as_posix() for folder in plugins() if files is None or has_changed(folder, files)))


def plugins() -> list[Path]:
    """Return the folders of all plug-ins, and of the examples, which are built as they are."""
    return sorted(path.parent for folder in ("plugins", "examples") for path in ROOT.glob(f"{folder}/*/pyproject.toml"))


def has_changed(plugin: Path, files: Iterable[str]) -> bool:
    """Return whether files of a plug-in or of its ports are among some files."""
    table = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))
    places = (plugin.relative_to(ROOT).as_posix() + "/", *table["tool"]["skewless"]["ports"])
    return any(name.startswith(places) for name in files)


def changed_files() -> list[str]:
    """Return the names of the files that differ from the base, also those that git does not track yet."""
    head = _git("rev-parse", "HEAD")
    bases = (_git("merge-base", "HEAD", base) for base in _BASES)
    base = next((base for base in bases if base and base != head), [])
    changed = _git("diff", "--name-only", *base)
    return [*changed, *_git("ls-files", "--others", "--exclude-standard")]


def _git(*words: str) -> list[str]:
    """Return the lines that git prints; none if it fails, as in a clone without a second commit."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


if __name__ == "__main__":
    main()
