"""Chooses the runtimes of a model: each is certified and measured when the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.candidates import RuntimeCandidate
from skewless.infra.runtimes.certification import Certificate, Reference, certify
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.shared import (
    SIZES,
    Calibration,
    RuntimeMember,
    SharedRuntime,
    Step,
    calibrate,
    choose_steps,
)
from skewless.infra.telemetry.logger import EventLogger

Role = Literal["own", "shared", "chosen", "slower", "refused"]
_SLACK = 20.0  # a child may take this many times the expected seconds
_MIN_TIMEOUT_S = 1.0
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class RuntimeTrial:
    """The trial of a runtime when the model was loaded.

    Args:
        role: ``own``: the library's; ``shared``: bit-equal, gets the batches on which it is faster;
            ``chosen``: within the tolerance, gets all batches; ``slower``: gets none; ``refused``: not certified.
        reason: reason of a refusal.
        from_rows: rows of the smallest batch that it gets.
    """

    runtime: str
    role: Role
    reason: str | None = None
    certificate: Certificate | None = None
    calibration: Calibration | None = None
    from_rows: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; seconds by rows."""
        return {
            "runtime": self.runtime,
            "role": self.role,
            "reason": self.reason,
            "bit_equal": None if self.certificate is None else self.certificate.bit_equal,
            "largest_difference": None if self.certificate is None else self.certificate.largest_difference,
            "from_rows": self.from_rows,
            "seconds": {}
            if self.calibration is None
            else {str(size): s for size, s in zip(SIZES, self.calibration.seconds, strict=True)},
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class RuntimeChoice:
    """The runtime that scores a model, and the trials behind its choice.

    Args:
        certificate: certificate of the runtime; if several share the work, all are bit-equal.
        trials: all runtimes, the library's own first.
    """

    runtime: Runtime
    certificate: Certificate
    trials: tuple[RuntimeTrial, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _CertifiedRuntime:
    member: RuntimeMember
    certificate: Certificate


def choose(
    library: Runtime,
    certificate: Certificate,
    candidates: Sequence[RuntimeCandidate],
    reference: Reference,
    *,
    tolerance: float = 0.0,
    large: bool = False,
) -> RuntimeChoice:
    """Certify and measure the candidates, and return the runtime that scores the model.

    Bit-equal runtimes share the batches. A runtime that differs within the tolerance gets all batches or none: all if
    it is faster than the others at every size (``large``: at the largest). Unused runtimes are closed.

    Args:
        library: the library's own runtime.
        certificate: its certificate.
        tolerance: largest margin difference that the spec accepts.
        large: batches are large, as in batch prediction.
    """
    refused: list[RuntimeTrial] = []
    accepted: list[_CertifiedRuntime] = []
    for candidate in candidates:
        try:
            accepted.append(_certify_candidate(candidate, reference, tolerance))
        except PackageError as error:
            refused.append(RuntimeTrial(runtime=candidate.name, role="refused", reason=error.sentence()))
            _log.warning("runtime_refused", runtime=candidate.name, reason=error.sentence())
    if not accepted:
        first = RuntimeTrial(runtime=library.runtime_id, role="own", certificate=certificate, from_rows=1)
        return RuntimeChoice(runtime=library, certificate=certificate, trials=(first, *refused) if refused else ())
    # Only now: without a second runtime there is nothing to choose, and loading is faster.
    own_certified = _CertifiedRuntime(
        member=RuntimeMember(library, calibrate(library, reference.rows)), certificate=certificate
    )
    return _build_choice([own_certified, *accepted], refused, large=large)


def _build_choice(
    certified: Sequence[_CertifiedRuntime], refused: Sequence[RuntimeTrial], *, large: bool
) -> RuntimeChoice:
    own, plan = certified[0], _assign_batches(certified, large=large)
    trials = (*(_describe_trial(each, own, plan) for each in certified), *refused)
    _log.info("runtimes_measured", runtimes=[item.as_dict() for item in trials])
    used = [each for each in certified[1:] if each in plan.values()]
    for each in certified[1:]:
        if each not in used:
            each.member.close()
    if not used:
        return RuntimeChoice(runtime=own.member.runtime, certificate=own.certificate, trials=trials)
    steps = [Step(rows=rows, at=[own, *used].index(each)) for rows, each in plan.items()]
    runtime = SharedRuntime(own.member, [each.member for each in used], steps)
    weakest = next((each for each in [*used, own] if not each.certificate.bit_equal), own)
    return RuntimeChoice(runtime=runtime, certificate=weakest.certificate, trials=trials)


def _certify_candidate(candidate: RuntimeCandidate, reference: Reference, tolerance: float) -> _CertifiedRuntime:
    if candidate.open is None:
        raise PackageError(
            f"runtime {candidate.name!r}", str(candidate.problem), fix="do nothing: its own library scores the model"
        )
    runtime: Runtime | None = None
    try:
        runtime = candidate.open()
        certificate = certify(runtime, reference, tolerance=tolerance)
        calibration = calibrate(runtime, reference.rows)
    except Exception as error:  # no process, no memory, a lost device: refuse only this runtime
        if runtime is not None:
            runtime.close()
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f"runtime {candidate.name!r}",
            f"failed its trial: {error}",
            fix="do nothing: its own library scores the model",
        ) from error
    if isinstance(runtime, ChildRuntime):
        # The last size has 4,096 rows, which is what `timeout_s` is for.
        runtime.timeout_s = max(_MIN_TIMEOUT_S, _SLACK * calibration.seconds[-1])
    reopen = partial(_reopen, candidate, reference, tolerance, certificate) if candidate.reopens else None
    member = RuntimeMember(runtime, calibration, reopen, is_inline=candidate.is_inline)
    return _CertifiedRuntime(member=member, certificate=certificate)


def _reopen(candidate: RuntimeCandidate, reference: Reference, tolerance: float, earlier: Certificate) -> Runtime:
    """Open and certify a lost runtime again; it must be bit-equal if it was before.

    Its version must be the same, too, because the log names the runtime once per load.
    """
    certified = _certify_candidate(candidate, reference, tolerance)
    is_same_version = certified.certificate.runtime_id == earlier.runtime_id
    if not is_same_version or (earlier.bit_equal and not certified.certificate.bit_equal):
        certified.member.close()
        problem = (
            "has other bits after reopening"
            if is_same_version
            else f"has reopened as {certified.certificate.runtime_id!r}"
        )
        raise PackageError(f"runtime {candidate.name!r}", problem, fix="load the model again")
    return certified.member.runtime


def _assign_batches(certified: Sequence[_CertifiedRuntime], *, large: bool) -> dict[int, _CertifiedRuntime]:
    """Return the runtime from each number of rows on: a bit-equal one by size, or always the same tolerant one."""
    own = certified[0]
    exact = [each for each in certified if each is own or _is_exact(each, own)]
    steps = choose_steps([each.member.calibration for each in exact])
    plan = {step.rows: exact[step.at] for step in steps}
    for each in certified:
        if each not in exact and all(
            each.member.calibration.is_faster(
                next(plan[rows] for rows in sorted(plan, reverse=True) if rows <= size).member.calibration, size
            )
            for size in (SIZES[-1:] if large else SIZES)
        ):
            return {1: each}
    return plan


def _is_exact(member: _CertifiedRuntime, own: _CertifiedRuntime) -> bool:
    """Return whether it is bit-equal to the library's runtime, because both are bit-equal to the training library."""
    return member.certificate.bit_equal and own.certificate.bit_equal


def _describe_trial(
    each: _CertifiedRuntime, own: _CertifiedRuntime, plan: Mapping[int, _CertifiedRuntime]
) -> RuntimeTrial:
    rows = [rows for rows, scorer in plan.items() if scorer is each]
    role_if_used: Role = "shared" if _is_exact(each, own) else "chosen"
    return RuntimeTrial(
        runtime=each.member.runtime_id,
        role="own" if each is own else role_if_used if rows else "slower",
        certificate=each.certificate,
        calibration=each.member.calibration,
        from_rows=min(rows, default=None),
    )
