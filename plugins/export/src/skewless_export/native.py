"""Compiles an export's C, and runs its test program, also for another machine with an emulator."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skewless.contract.errors import PlaceError
from skewless.infra.models.runtimes.port import Matrix

_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """A compiler of C, and what runs its programs.

    Args:
        compiler: its command, for example ``gcc`` or ``aarch64-linux-gnu-gcc -static``.
        flags: further arguments; the flags of an export keep its bits.
        runner: command before the program, for example ``qemu-aarch64``; empty: the program runs itself.
    """

    compiler: str
    flags: Sequence[str]
    runner: str = ""

    def version(self) -> str:
        """Return the first line that the compiler says about itself.

        Raises:
            PlaceError: it is not installed.
        """
        return _run([*self._command(), "--version"]).decode(errors="replace").splitlines()[0].strip()

    def machine(self) -> str:
        """Return the machine for which it compiles, or an empty text if it does not say."""
        try:
            return _run([*self._command(), "-dumpmachine"]).decode(errors="replace").strip()
        except PlaceError:
            return ""

    def build(self, sources: Sequence[Path], program: Path) -> None:
        """Compile sources into a program.

        Raises:
            PlaceError: the compiler is missing or refuses them.
        """
        _run([*self._command(), *self.flags, "-o", str(program), *map(str, sources), "-lm"])

    def run(self, sources: Sequence[Path], data: bytes) -> bytes:
        """Compile sources, and return what their program writes for its standard input.

        Raises:
            PlaceError: a tool is missing or fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "program"
            self.build(sources, program)
            return _run([*shlex.split(self.runner), str(program), "-"], data)

    def score(self, sources: Sequence[Path], rows: Matrix) -> Matrix:
        """Return what the test program of an export gives for rows, shape ``(n, n_numbers)``.

        Raises:
            PlaceError: a tool is missing or fails.
        """
        return np.frombuffer(self.run(sources, rows.tobytes()), dtype=np.float64).reshape(len(rows), -1)

    def _command(self) -> list[str]:
        words = shlex.split(self.compiler)
        if not words or shutil.which(words[0]) is None:
            fix = "install it, for example with `apt-get install gcc`, or name another with --compiler"
            raise PlaceError("compiler", "is not installed", value=self.compiler, fix=fix)
        return words


def _run(command: Sequence[str], data: bytes = b"") -> bytes:
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except OSError as error:
        raise PlaceError(f"program {command[0]}", f"cannot be run: {error.strerror}", fix="install it") from error
    except subprocess.TimeoutExpired as error:
        raise PlaceError(
            f"program {command[0]}", f"does not end within {_SECONDS} s", fix="try a smaller model"
        ) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").splitlines()
        problem = f"ends with code {done.returncode}: {lines[0] if lines else 'no message'}"
        raise PlaceError(f"program {command[0]}", problem, fix="see its message")
    return done.stdout
