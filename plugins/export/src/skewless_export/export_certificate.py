"""The certificate of an export: which rows were compared, with which tools, and what differed."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.runtimes.port import Matrix

CERTIFICATE = "certificate.json"
ROWS = "rows.bin.gz"
_FORMAT = 1
_LISTED = 20
_NAMED = 3  # inputs of a row, in an error
_CPU_FILE = Path("/proc/cpuinfo")
# Several exponentials and one division of a softmax, each off by one unit in another C library.
_MOST_ULPS = 4.0
_FIX = "export the model again"


@dataclass(frozen=True, kw_only=True)
class ScoreDifference(PlainRecord):
    """A row whose raw scores differ: its number, the numbers, and the row; numbers in hexadecimal."""

    row: int
    expected: Sequence[str]
    actual: Sequence[str]
    inputs: Sequence[str]

    def sentence(self) -> str:
        """Return the scores of the row, and its first inputs that have more than single precision."""
        expected, actual, inputs = (
            [float.fromhex(number) for number in numbers] for numbers in (self.expected, self.actual, self.inputs)
        )
        with np.errstate(over="ignore", under="ignore"):
            rounded = [
                at for at, number in enumerate(inputs) if float(np.float32(number)) != number and not np.isnan(number)
            ]
        listed = ", ".join(f"input {at} is {inputs[at]!r}" for at in rounded[:_NAMED])
        return f"row {self.row} ({listed}) scores {actual}, not {expected}"


@dataclass(frozen=True, kw_only=True)
class ScoreComparison(PlainRecord):
    """The scores of an export, compared with the library's.

    Args:
        rows: number of rows.
        different: number of rows whose raw scores have other bits.
        largest: largest difference of raw scores; infinite ones are written as text.
        examples: the first rows that differ.
        prediction_ulps: largest difference of predictions in units in the last place; None: there are none.
        bound: how far a prediction (without predictions: a raw score) may be off, relative if it is above 1; None: raw
            scores must have equal bits.
        beyond: number of rows that are off by more than the bound; ``examples`` are those.
        gap: largest difference, measured as the bound is.
    """

    rows: int
    different: int
    largest: float | str
    examples: Sequence[ScoreDifference]
    prediction_ulps: float | str | None
    bound: float | None = None
    beyond: int = 0
    gap: float | str = 0.0

    @property
    def problem(self) -> str | None:
        """Return what is wrong; None: raw scores have equal bits, and predictions are within their bound."""
        if self.bound is not None:
            changes = f"changes {self.beyond} of {self.rows} scores by more than {self.bound:g}"
            return f"{changes}, by up to {float(self.gap):.3g}" if self.beyond else None
        if self.different:
            return f"has other raw scores than the library for {self.different} of {self.rows} rows, by {self.largest}"
        if self.prediction_ulps is not None and not float(self.prediction_ulps) <= _MOST_ULPS:
            return f"has predictions that differ by {self.prediction_ulps} units in the last place"
        return None


@dataclass(frozen=True, kw_only=True)
class ExportCertificate(PlainRecord):
    """What a certificate says; ``files`` are the SHA-256 of all other files of the export.

    Args:
        model: the model's name.
        version: of its package.
        package: SHA-256 of the package's manifest.
        target: the kind of export.
        stem: name of its files without endings.
        release: of skewless.
        library: the library that gave the expected scores, with its version.
        objective: the library's own text.
        n_inputs: number of inputs.
        n_outputs: number of raw scores per row.
        predictions: whether the export has predictions, too.
        prediction_type: type of the library's predictions, whose units are counted.
        note: what the caller computes before.
        flags: of the compiler.
        tools: names and versions of tools.
        machine: where it was certified.
        kinds: number of rows by kind.
        nodes: number of tests in the trees.
        tested: number of tests for which rows lie on both sides of the threshold, next to it.
        scores: the result.
        measured: facts of size and speed on that machine, as texts.
    """

    model: str
    version: str
    package: str
    target: str
    stem: str
    release: str
    library: str
    objective: str
    n_inputs: int
    n_outputs: int
    predictions: bool
    prediction_type: str
    note: str
    flags: Sequence[str]
    tools: Mapping[str, str]
    machine: Mapping[str, str]
    kinds: Mapping[str, int]
    nodes: int
    tested: int
    scores: ScoreComparison
    files: Mapping[str, str]
    measured: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the certificate as JSON."""
        return (json.dumps({"format": _FORMAT, **self.as_dict()}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> ExportCertificate:
        """Return the certificate of a JSON text.

        Raises:
            PackageError: the text is not a certificate.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if content.pop("format") != _FORMAT or not all(map(_is_inside, content["files"])):
                content = {}
            return cls.from_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PackageError("certificate", "cannot be read", value=repr(error), fix=_FIX) from error


def _is_inside(name: str) -> bool:
    """Return whether a name of a file stays in the folder of its export."""
    parts = name.split("/")
    return not any(part in {"", ".", ".."} for part in parts)


def compare_scores(
    rows: Matrix, expected: Matrix, actual: Matrix, n_outputs: int, kind: str, *, bound: float | None = None
) -> ScoreComparison:
    """Compare what an export gives with what the library gives.

    Args:
        rows: ``(n, n_inputs)`` float64.
        expected: raw scores, and then predictions if there are any, ``(n, n_numbers)`` float64.
        actual: the export's, of the same shape.
        n_outputs: raw scores per row.
        kind: type of the library's predictions.
        bound: how far a prediction may be off; None: raw scores must have equal bits.

    Raises:
        PackageError: the export gives another number of numbers.
    """
    if expected.shape != actual.shape:
        raise PackageError("export", "gives another number of scores", value=str(actual.shape), fix=_FIX)
    left, right = np.ascontiguousarray(expected[:, :n_outputs]), np.ascontiguousarray(actual[:, :n_outputs])
    differs = np.flatnonzero((left.view(np.int64) != right.view(np.int64)).any(axis=1))
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(left[differs] - right[differs])
    has_predictions = expected.shape[1] > n_outputs
    beyond = np.empty(0, dtype=np.intp)
    largest = 0.0
    shown = (differs, left, right)
    if bound is not None:
        numbers = slice(n_outputs if has_predictions else 0, None)
        off = _relative(expected[:, numbers], actual[:, numbers])
        beyond, largest = np.flatnonzero(off > bound), float(off.max(initial=0.0))
        shown = (beyond, expected[:, numbers], actual[:, numbers])
    listed, wanted, given = shown
    examples = [
        ScoreDifference(row=int(at), expected=_hex(wanted[at]), actual=_hex(given[at]), inputs=_hex(rows[at]))
        for at in listed[:_LISTED]
    ]
    # Units in the last place say nothing where a bound is allowed.
    has_ulps = has_predictions and bound is None
    return ScoreComparison(
        rows=len(rows),
        different=len(differs),
        largest=_finite(float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))),
        examples=examples,
        prediction_ulps=_ulps(expected[:, n_outputs:], actual[:, n_outputs:], kind) if has_ulps else None,
        bound=bound,
        beyond=len(beyond),
        gap=_finite(largest),
    )


def _relative(expected: Matrix, actual: Matrix) -> NDArray[np.float64]:
    """Return the largest difference of each row, relative to expected numbers above 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(expected - actual) / np.maximum(1.0, np.abs(expected))
    off[(expected == actual) | (np.isnan(expected) & np.isnan(actual))] = 0.0
    largest: NDArray[np.float64] = np.nan_to_num(off, nan=np.inf, posinf=np.inf).max(axis=1)
    return largest


def prediction_type(predictions: Matrix) -> str:
    """Return the type whose units count: XGBoost's predictions are float32 numbers."""
    with np.errstate(over="ignore"):
        is_float32 = np.array_equal(predictions.astype(np.float32).astype(np.float64), predictions, equal_nan=True)
    return "float32" if is_float32 else "float64"


def _hex(values: NDArray[np.float64]) -> list[str]:
    return [float(value).hex() for value in values]


def _finite(value: float) -> float | str:
    # JSON has no infinity.
    return value if np.isfinite(value) else str(value)


def _ulps(expected: Matrix, actual: Matrix, kind: str) -> float | str:
    unit = np.spacing(np.abs(expected.astype(kind))).astype(np.float64)
    with np.errstate(invalid="ignore"):
        ulps = np.abs(expected - actual) / unit
    ulps[(expected == actual) | (np.isnan(expected) & np.isnan(actual))] = 0.0
    return _finite(float(np.nan_to_num(ulps, nan=np.inf, posinf=np.inf).max(initial=0.0)))


def pack_rows(rows: Matrix, expected: Matrix) -> bytes:
    """Return the rows and expected numbers as a file: both as little-endian float64, row by row, compressed."""
    return gzip.compress(rows.astype("<f8").tobytes() + expected.astype("<f8").tobytes(), mtime=0)


def unpack_rows(data: bytes, certificate: ExportCertificate) -> tuple[Matrix, Matrix]:
    """Return the rows and expected numbers of such a file.

    Raises:
        PackageError: the file does not fit the certificate.
    """
    width = certificate.n_outputs * (2 if certificate.predictions else 1)
    count = certificate.scores.rows
    try:
        numbers = np.frombuffer(gzip.decompress(data), dtype="<f8")
        rows, expected = np.split(numbers, [count * certificate.n_inputs])
        return rows.reshape(count, certificate.n_inputs).copy(), expected.reshape(count, width).copy()
    except (OSError, EOFError, ValueError) as error:
        raise PackageError(f"file {ROWS}", "does not fit the certificate", fix=_FIX) from error


def file_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of files by name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}


def this_machine() -> dict[str, str]:
    """Return the machine's system, architecture and processor, as far as it tells them."""
    facts = {"system": platform.system(), "architecture": platform.machine(), "python": platform.python_version()}
    try:
        lines = [line for line in _CPU_FILE.read_text().splitlines() if line.startswith("model name")]
    except OSError:
        lines = []
    return {**facts, "cpu": lines[0].partition(":")[2].strip()} if lines else facts
