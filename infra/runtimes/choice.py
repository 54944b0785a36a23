"""Which runtimes a model uses: each is certified and measured when the model is loaded, and the table is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import structlog

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.calibration import SIZES, Calibration, Step, calibrate, steps
from skewless.infra.runtimes.candidates import RuntimeCandidate
from skewless.infra.runtimes.certification import Certificate, certify
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.reference import Reference
from skewless.infra.runtimes.shared import RuntimeMember, SharedRuntime

Role = Literal["own", "shared", "chosen", "slower", "refused"]
_SLACK = 20.0  # times the expected seconds that a child may take
_LEAST_ANSWER_S = 1.0
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class RuntimeTrial:
    """A runtime that was tried when the model was loaded.

    Args:
        role: ``own``: the library's; ``shared``: gives the same bits and gets the batches on which it is faster;
            ``chosen``: within the tolerance, and gets all batches of this load; ``slower``: gets none; ``refused``.
        reason: of a refusal.
        from_rows: the fewest rows of a batch that it gets.
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
    """What scores a model.

    Args:
        certificate: of what answers; where several share the work, all are bit-equal.
        trials: all runtimes, the library's own first.
    """

    runtime: Runtime
    certificate: Certificate
    trials: tuple[RuntimeTrial, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Certified:
    member: RuntimeMember
    certificate: Certificate


def choose(
    own: Runtime,
    certificate: Certificate,
    candidates: Sequence[RuntimeCandidate],
    reference: Reference,
    *,
    tolerance: float = 0.0,
    large: bool = False,
) -> RuntimeChoice:
    """Certify and measure the candidates, and return what scores the model.

    Bit-equal runtimes share the batches. One that differs within the tolerance gets all batches or none: all where it
    is faster at every size than what else there is (``large``: at the largest). What gets none is closed.

    Args:
        own: the library's runtime.
        certificate: its certificate.
        tolerance: largest margin difference that the spec accepts.
        large: batches are large, as in batch prediction.
    """
    refused: list[RuntimeTrial] = []
    others: list[_Certified] = []
    for candidate in candidates:
        try:
            others.append(_certified(candidate, reference, tolerance))
        except PackageError as error:
            refused.append(RuntimeTrial(runtime=candidate.name, role="refused", reason=error.sentence()))
            _log.warning("runtime_refused", runtime=candidate.name, reason=error.sentence())
    if not others:
        first = RuntimeTrial(runtime=own.runtime_id, role="own", certificate=certificate, from_rows=1)
        return RuntimeChoice(runtime=own, certificate=certificate, trials=(first, *refused) if refused else ())
    mine = _Certified(member=RuntimeMember(own, calibrate(own, reference.rows)), certificate=certificate)
    return _chosen([mine, *others], refused, large=large)


def _chosen(everyone: Sequence[_Certified], refused: Sequence[RuntimeTrial], *, large: bool) -> RuntimeChoice:
    plan = _plan(everyone[0], everyone[1:], large=large)
    own = everyone[0]
    trials = [*(_tried(each, at, plan, exact=_is_exact(each, own)) for at, each in enumerate(everyone)), *refused]
    _log.info("runtimes_measured", runtimes=[item.as_dict() for item in trials])
    used = {step.at for step in plan}
    for at, each in enumerate(everyone[1:], 1):
        if at not in used:
            each.member.close()
    members = {at: everyone[at].member for at in sorted(used - {0})}
    places = {at: place for place, at in enumerate([0, *members])}
    if not members:
        return RuntimeChoice(runtime=own.member.runtime, certificate=own.certificate, trials=tuple(trials))
    moved = [Step(rows=step.rows, at=places[step.at]) for step in plan]
    runtime = SharedRuntime(own.member, list(members.values()), moved)
    certificates = [*(everyone[at].certificate for at in members), own.certificate]
    weakest = next((found for found in certificates if not found.bit_equal), own.certificate)
    return RuntimeChoice(runtime=runtime, certificate=weakest, trials=tuple(trials))


def _certified(candidate: RuntimeCandidate, reference: Reference, tolerance: float) -> _Certified:
    if candidate.open is None:
        raise PackageError(f"runtime {candidate.name!r}", str(candidate.problem), fix="the CPU answers meanwhile")
    runtime: Runtime | None = None
    try:
        runtime = candidate.open()
        certificate = certify(runtime, reference, tolerance=tolerance)
        calibration = calibrate(runtime, reference.rows)
    except Exception as error:  # no process, no memory, a device that is lost: only this runtime is refused for it
        if runtime is not None:
            runtime.close()
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f"runtime {candidate.name!r}", f"failed when it was tried: {error}", fix="the CPU answers meanwhile"
        ) from error
    if isinstance(runtime, ChildRuntime):
        runtime.answer_s = max(_LEAST_ANSWER_S, _SLACK * calibration.seconds[-1])
    again = partial(_opened_again, candidate, reference, tolerance, certificate) if candidate.reopens else None
    return _Certified(member=RuntimeMember(runtime, calibration, again), certificate=certificate)


def _opened_again(candidate: RuntimeCandidate, reference: Reference, tolerance: float, before: Certificate) -> Runtime:
    """Return a runtime that was lost, certified as it was before: what shared the batches must still be bit-equal.

    The log names what answers once per load, so it must still be the same version too.
    """
    found = _certified(candidate, reference, tolerance)
    same = found.certificate.runtime_id == before.runtime_id
    if not same or (before.bit_equal and not found.certificate.bit_equal):
        found.member.close()
        problem = "came back with other bits" if same else f"came back as {found.certificate.runtime_id!r}"
        raise PackageError(f"runtime {candidate.name!r}", problem, fix="load the model again")
    return found.member.runtime


def _plan(mine: _Certified, others: Sequence[_Certified], *, large: bool) -> tuple[Step, ...]:
    """Return which of ``(mine, *others)`` a batch goes to: bit-equal ones by size, or a tolerant one every time."""
    everyone = [mine, *others]
    exact = [at for at, each in enumerate(everyone) if each is mine or _is_exact(each, mine)]
    found = steps([everyone[at].member.calibration for at in exact])
    shared = tuple(Step(rows=step.rows, at=exact[step.at]) for step in found)
    judged = SIZES[-1:] if large else SIZES
    for at, each in enumerate(everyone):
        if at not in exact and all(
            each.member.calibration.beats(everyone[_at(shared, size)].member.calibration, size) for size in judged
        ):
            return (Step(rows=1, at=at),)
    return shared


def _is_exact(each: _Certified, mine: _Certified) -> bool:
    """Say whether it and the library's runtime give the same bits: both have those of the library that trained."""
    return each.certificate.bit_equal and mine.certificate.bit_equal


def _at(plan: Sequence[Step], rows: int) -> int:
    return [step.at for step in plan if step.rows <= rows][-1]


def _tried(each: _Certified, at: int, plan: Sequence[Step], *, exact: bool) -> RuntimeTrial:
    rows = [step.rows for step in plan if step.at == at]
    used: Role = "shared" if exact else "chosen"
    return RuntimeTrial(
        runtime=each.member.runtime_id,
        role="own" if at == 0 else used if rows else "slower",
        certificate=each.certificate,
        calibration=each.member.calibration,
        from_rows=min(rows, default=None),
    )
