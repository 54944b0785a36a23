"""The commands of docs/export.md do what it says, on the template's model."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.export.tests.tree_exports import find_toolchain, find_wasm
from tests.docs.pages import Step, blocks, page, steps
from tests.worlds.command_line import run
from tests.worlds.rollouts import NEW, OLD
from tests.worlds.trained import MODEL, Sandbox, opened_copy

# Programs of the page, with the packages that have them.
PROGRAMS = {"gcc": "gcc", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}


def sizeless(text: str) -> str:
    """Return a text without the numbers of two digits or more, which depend on the rows of the project."""
    return re.sub(r"\d[\d,]+", "N", text.strip())


def execute(step: Step, place: Sandbox, folder: Path) -> str:
    """Run a command of the page in a folder; return its standard output."""
    words = shlex.split(step.command)
    if words[0] == "skewless":
        said = run(*words[1:], "--repo", place.repo)
        assert said.code == 0, said
        return said.stdout
    program = {"python": sys.executable}.get(words[0], words[0])
    done = subprocess.run([program, *words[1:]], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_every_command_does_what_the_page_shows(
    two_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = steps(page("export.md"))
    assert len(session) > 5
    find_toolchain("gcc")  # each export to C is compiled
    monkeypatch.chdir(tmp_path)
    (device,) = (code for code in blocks(page("export.md"), "c") if "main" in code)
    (tmp_path / "device.c").write_text(device)
    with opened_copy(two_versions, tmp_path / "project") as place:
        # The smaller version: its code compiles in a fraction of the time.
        aliases = place.project.store.aliases
        aliases.move(MODEL, "champion", expect=OLD, to=NEW, reason="it is smaller", now_us=place.now_us())
        for step in session:
            missing = [name for name in PROGRAMS if name in step.command and shutil.which(name) is None]
            if missing:
                pytest.skip(f"{missing[0]} is not installed: apt-get install {PROGRAMS[missing[0]]}")
            if "--to wasm" in step.command:
                find_wasm()
            stdout = execute(step, place, tmp_path)
            for line in step.shown.splitlines():
                assert sizeless(line) in sizeless(stdout), step
