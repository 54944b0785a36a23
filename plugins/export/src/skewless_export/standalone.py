"""Repeats the certificate of an export of C with Python's standard library alone, of ONNX with ONNX Runtime.

    python certify.py [FOLDER] [--compiler gcc] [--runner qemu-aarch64]

It checks the digests of the files, builds the export on this machine, and compares the bits of its scores with those
of the library that trained the model. It does not check who signed the certificate: ``skewless certify`` does.
"""

from __future__ import annotations

import argparse
import array
import gzip
import hashlib
import json
import math
import platform
import shlex
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_ROWS = "rows.bin.gz"
_LISTED = 10


def main() -> int:
    """Certify a folder; return 0 if all raw scores have the expected bits, otherwise 1."""
    parser = argparse.ArgumentParser(description="Repeat the certificate of an export.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--runner", default="", help="command before the program, for example qemu-aarch64")
    given = parser.parse_args()
    certificate = json.loads((given.folder / "certificate.json").read_text())
    for name, digest in certificate["files"].items():
        if hashlib.sha256((given.folder / name).read_bytes()).hexdigest() != digest:
            sys.stdout.write(f"{name} is not the file of the certificate\n")
            return 1
    if certificate["target"] not in {"c", "edge", "onnx"}:
        sys.stdout.write(f"use `skewless certify` for the target {certificate['target']}\n")
        return 1
    return _compare(given.folder, certificate, given.compiler, given.runner)


def _compare(folder: Path, certificate: dict[str, Any], compiler: str, runner: str) -> int:
    inputs, outputs = certificate["n_inputs"], certificate["n_outputs"]
    width = outputs * (2 if certificate["predictions"] else 1)
    data = gzip.decompress((folder / _ROWS).read_bytes())
    count = len(data) // 8 // (inputs + width)
    rows, expected = data[: 8 * count * inputs], array.array("d", data[8 * count * inputs :])
    scores = array.array("d", _score(folder, certificate, compiler, runner, rows))
    if len(scores) != count * width:
        sys.stdout.write(f"{len(scores)} numbers instead of {count * width}\n")
        return 1
    different, largest = [], 0.0
    for at in range(count):
        margins = slice(at * width, at * width + outputs)
        if scores[margins].tobytes() != expected[margins].tobytes():
            different.append(at)
        for number in range(at * width + outputs, (at + 1) * width):
            largest = max(largest, _ulps(scores[number], expected[number], certificate["prediction_type"]))
    for at in different[:_LISTED]:
        one = array.array("d", rows[8 * at * inputs : 8 * (at + 1) * inputs]).tolist()
        sys.stdout.write(f"row {at}: {scores[at * width].hex()}, not {expected[at * width].hex()}, for {one}\n")
    machine = f"{platform.machine()}, {platform.system()}, {compiler}{f', {runner}' if runner else ''}"
    sys.stdout.write(f"{len(different)} of {count} rows have another raw score ({machine})\n")
    if certificate["predictions"]:
        sys.stdout.write(f"predictions differ by at most {largest:g} units in the last place\n")
    return 1 if different else 0


def _score(folder: Path, certificate: dict[str, Any], compiler: str, runner: str, rows: bytes) -> bytes:
    stem = certificate["stem"]
    if certificate["target"] == "onnx":
        return _score_onnx(folder / f"{stem}.onnx", rows, certificate["n_inputs"])
    sources = [str(folder / f"{stem}.c"), str(folder / f"{stem}_test.c")]
    with tempfile.TemporaryDirectory() as scratch:
        program = f"{scratch}/program"
        flags = certificate["flags"]
        subprocess.run([*shlex.split(compiler), *flags, "-o", program, *sources, "-lm"], check=True)  # noqa: S603
        command = [*shlex.split(runner), program, "-"]
        return subprocess.run(command, input=rows, capture_output=True, check=True).stdout  # noqa: S603


def _score_onnx(path: Path, rows: bytes, inputs: int) -> bytes:
    import numpy as np  # noqa: PLC0415 - only this target needs packages
    import onnxruntime  # noqa: PLC0415 - as above

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.frombuffer(rows).reshape(-1, inputs)})
    return np.concatenate(outputs, axis=1).tobytes()


def _ulps(actual: float, expected: float, kind: str) -> float:
    if actual == expected or (math.isnan(actual) and math.isnan(expected)):
        return 0.0
    if not (math.isfinite(actual) and math.isfinite(expected)):
        return math.inf
    if kind == "float64":
        return abs(actual - expected) / math.ulp(expected)
    bits = struct.unpack("<I", struct.pack("<f", abs(expected)))[0]
    step = struct.unpack("<f", struct.pack("<I", bits + 1))[0] - abs(expected)
    return float(abs(actual - expected) / step)


if __name__ == "__main__":
    sys.exit(main())
