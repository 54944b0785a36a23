"""Measures the C of an export: bytes of code and data, RAM, and the time of a row."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skewless.infra.models.runtimes.port import Matrix
from skewless_export.native import Toolchain

_FLAGS = ("-c", "-fstack-usage", "-fno-asynchronous-unwind-tables", "-Wno-unused-command-line-argument")
_MOST_ROWS = 10_000
_SEED = 7
_ELF, _ORDER, _LITTLE = b"\x7fELF", 5, 1
_NO_BITS = 8  # type of a section that a file does not hold
_WRITE, _ALLOCATE, _EXECUTE = 1, 2, 4


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model needs on a device.

    Args:
        code: bytes of instructions.
        data: bytes of constants.
        ram: bytes of variables and stack; the sum of all functions that can be open at once.
        row_ns: mean time of the raw scores of a row; None: an emulator runs the program.
    """

    code: int
    data: int
    ram: int
    row_ns: float | None

    def compared(self, other: Footprint, name: str) -> dict[str, str]:
        """Return each number as a text, with the number of another export."""
        facts = {each: f"{getattr(self, each):,} bytes ({name}: {getattr(other, each):,})" for each in _SIZES}
        if self.row_ns is not None and other.row_ns is not None:
            facts["row"] = f"{self.row_ns / 1e3:.2f} us ({name}: {other.row_ns / 1e3:.2f})"
        return facts


_SIZES = ("code", "data", "ram")


def measure_c(files: Mapping[str, bytes], stem: str, rows: Matrix, toolchain: Toolchain) -> Footprint | None:
    """Compile a source and its header, and measure it; None: the compiler does not write what is measured.

    Args:
        files: the source and the header, by name.
        stem: name of the source without its ending.
        rows: ``(n, n_features)`` float64; at most 10,000 of them are timed, in random order.
        toolchain: it can be measured if it writes ELF files of little-endian numbers, and the size of the stack.

    Raises:
        PlaceError: a tool is missing or fails.
    """
    order = np.random.default_rng(_SEED).permutation(len(rows))[:_MOST_ROWS]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        timer = _TIMER.replace("@NAME@", stem).replace("@UPPER@", stem.upper())
        for name, data in {**files, "time.c": timer.encode()}.items():
            (folder / name).write_bytes(data)
        source = folder / f"{stem}.c"
        replace(toolchain, flags=(*toolchain.flags, *_FLAGS)).build([source], folder / "model.o")
        binary, usage = (folder / "model.o").read_bytes(), folder / "model.su"
        if not binary.startswith(_ELF) or binary[_ORDER] != _LITTLE or not usage.is_file():
            return None
        sections, stack = list(_sections(binary)), _stack(usage.read_text())
        sample = np.ascontiguousarray(rows[order])
        timed = None if toolchain.runner else toolchain.run([source, folder / "time.c"], sample.tobytes())
    return Footprint(
        code=sum(each.size for each in sections if each.flags & _EXECUTE),
        data=sum(each.size for each in sections if not each.flags & _EXECUTE and each.kind != _NO_BITS),
        ram=sum(each.size for each in sections if each.flags & _WRITE) + stack,
        row_ns=None if timed is None else struct.unpack("=d", timed)[0],
    )


def _stack(usage: str) -> int:
    """Return the bytes of the stack: the functions of trees are never open at once, and none calls itself."""
    most: dict[str, int] = {}
    for line in usage.splitlines():
        place, size, *_ = line.split("\t")
        name = re.sub(r"\d+", "", place.rpartition(":")[2])
        most[name] = max(most.get(name, 0), int(size))
    return sum(most.values())


class _Section(NamedTuple):
    """A section of an object file that is in memory when the program runs."""

    kind: int
    flags: int
    size: int


def _sections(data: bytes) -> Iterator[_Section]:
    """Yield the sections of an ELF file of little-endian numbers."""
    is_wide = data[4] == 2  # noqa: PLR2004 - ELFCLASS64
    start = struct.unpack_from("<Q" if is_wide else "<I", data, 40 if is_wide else 32)[0]
    step, count = struct.unpack_from("<HH", data, 58 if is_wide else 46)
    for at in range(start, start + step * count, step):
        _, kind, flags, _, _, size = struct.unpack_from("<IIQQQQ" if is_wide else "<IIIIII", data, at)
        if flags & _ALLOCATE:
            yield _Section(kind, flags, size)


_TIMER = """/* Reads rows, and writes the time of a row in nanoseconds: the best of some rounds. */
#include "@NAME@.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(void) {
    double *rows = NULL, best = 1e30, margins[@UPPER@_OUTPUTS];
    volatile double kept;
    size_t count = 0, room = 0, at;
    int round;
    do {
        if (count == room) {
            room = room ? 2 * room : 1024;
            rows = realloc(rows, room * @UPPER@_INPUTS * sizeof *rows);
            if (!rows) {
                return 2;
            }
        }
        at = fread(rows + count * @UPPER@_INPUTS, @UPPER@_INPUTS * sizeof *rows, 1, stdin);
        count += at;
    } while (at);
    for (round = 0; round < 5; round++) {
        clock_t start = clock();
        double each;
        for (at = 0; at < count; at++) {
            @NAME@_margin(rows + at * @UPPER@_INPUTS, margins);
            kept = margins[0];
        }
        each = (double)(clock() - start) / CLOCKS_PER_SEC * 1e9 / (double)count;
        best = each < best ? each : best;
    }
    (void)kept;
    free(rows);
    return fwrite(&best, sizeof best, 1, stdout) != 1;
}
"""
