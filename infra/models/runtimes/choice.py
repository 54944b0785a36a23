"""Chooses the runtime of a model: each is certified and measured once, in this process, when the model is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.candidates import RuntimeCandidate
from skewless.infra.models.runtimes.certification import Certificate, Reference, certify
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.infra.models.runtimes.port import Matrix, Runtime
from skewless.infra.platform.telemetry.logger import EventLogger

Role = Literal["own", "chosen", "slower", "refused"]
_MIN_GAIN = 1.1  # another runtime must be faster than the library by this factor, so that noise does not choose it
_MAX_CALLS = 10
_MAX_SECONDS = 0.1  # after this time a runtime is not measured again
_FIX = "do nothing: its own library scores the model"
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class RuntimeTrial:
    """The trial of a runtime when the model was loaded.

    Args:
        role: ``own``: the library's; ``chosen``: the fastest, scores all batches; ``slower``: scores none;
            ``refused``: not certified.
        reason: reason of a refusal.
        seconds: time of one call with ``rows`` rows.
    """

    runtime: str
    role: Role
    reason: str | None = None
    certificate: Certificate | None = None
    rows: int | None = None
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "runtime": self.runtime,
            "role": self.role,
            "reason": self.reason,
            "bit_equal": None if self.certificate is None else self.certificate.bit_equal,
            "largest_difference": None if self.certificate is None else self.certificate.largest_difference,
            "rows": self.rows,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class RuntimeChoice:
    """The runtime that scores a model, and the trials behind its choice.

    Args:
        certificate: certificate of the runtime; that of the library if both are bit-equal.
        trials: all runtimes, the library's own first; empty: there was no other.
    """

    runtime: Runtime
    certificate: Certificate
    trials: tuple[RuntimeTrial, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _CertifiedRuntime:
    runtime: Runtime
    certificate: Certificate
    seconds: float


def choose(
    library: Runtime,
    certificate: Certificate,
    candidates: Sequence[RuntimeCandidate],
    reference: Reference,
    *,
    tolerance: float = 0.0,
    batch_rows: int = 64,
) -> RuntimeChoice:
    """Certify and measure the candidates, and return the fastest runtime; the others are closed.

    The library's own is replaced only by a runtime that is faster by a tenth, and then scores where that one fails.

    Args:
        library: the library's own runtime.
        certificate: its certificate.
        tolerance: largest margin difference that the spec accepts.
        batch_rows: rows of the batch with which they are measured.
    """
    refused: list[RuntimeTrial] = []
    accepted: list[_CertifiedRuntime] = []
    for candidate in candidates:
        try:
            accepted.append(_try_candidate(candidate, reference, tolerance, batch_rows))
        except PackageError as error:
            refused.append(RuntimeTrial(runtime=candidate.name, role="refused", reason=error.sentence()))
            _log.warning("runtime_refused", runtime=candidate.name, reason=error.sentence())
    if not accepted:
        first = RuntimeTrial(runtime=library.runtime_id, role="own", certificate=certificate)
        return RuntimeChoice(runtime=library, certificate=certificate, trials=(first, *refused) if refused else ())
    # Only now: without a second runtime there is nothing to choose, and loading is faster.
    seconds = measure(library, reference.rows, batch_rows)
    own = _CertifiedRuntime(runtime=library, certificate=certificate, seconds=seconds)
    fastest = min(accepted, key=lambda each: each.seconds)
    chosen = fastest if fastest.seconds * _MIN_GAIN < own.seconds else own
    trials = (*(_describe_trial(each, own, chosen, batch_rows) for each in (own, *accepted)), *refused)
    _log.info("runtimes_measured", runtimes=[item.as_dict() for item in trials])
    for each in accepted:
        if each is not chosen:
            each.runtime.close()
    if chosen is own:
        return RuntimeChoice(runtime=library, certificate=certificate, trials=trials)
    weakest = own if chosen.certificate.bit_equal else chosen
    runtime = FallbackRuntime(chosen.runtime, library)
    return RuntimeChoice(runtime=runtime, certificate=weakest.certificate, trials=trials)


def measure(runtime: Runtime, rows: Matrix, size: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of one call: the minimum of some, because other load only adds time.

    Args:
        rows: rows to score; they are repeated to fill the size.
        size: rows of a call.
    """
    matrix = np.ascontiguousarray(np.resize(rows, (size, rows.shape[1])))
    runtime.score(matrix)  # warm up: the first call allocates buffers
    began = clock()
    durations: list[float] = []
    while not durations or (len(durations) < _MAX_CALLS and clock() - began < _MAX_SECONDS):
        start = clock()
        runtime.score(matrix)
        durations.append(clock() - start)
    return min(durations)


def _try_candidate(
    candidate: RuntimeCandidate, reference: Reference, tolerance: float, batch_rows: int
) -> _CertifiedRuntime:
    if candidate.problem is not None:
        raise PackageError(f"runtime {candidate.name!r}", candidate.problem, fix=_FIX)
    runtime: Runtime | None = None
    try:
        runtime = candidate.open()
        certificate = certify(runtime, reference, tolerance=tolerance)
        seconds = measure(runtime, reference.rows, batch_rows)
    except Exception as error:  # no memory, a lost device: refuse only this runtime
        if runtime is not None:
            runtime.close()
        if isinstance(error, PackageError):
            raise
        raise PackageError(f"runtime {candidate.name!r}", f"failed its trial: {error}", fix=_FIX) from error
    return _CertifiedRuntime(runtime=runtime, certificate=certificate, seconds=seconds)


def _describe_trial(
    each: _CertifiedRuntime, own: _CertifiedRuntime, chosen: _CertifiedRuntime, batch_rows: int
) -> RuntimeTrial:
    return RuntimeTrial(
        runtime=each.runtime.runtime_id,
        role="own" if each is own else "chosen" if each is chosen else "slower",
        certificate=each.certificate,
        rows=batch_rows,
        seconds=each.seconds,
    )
