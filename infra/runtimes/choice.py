"""Chooses the runtimes of a model: each is certified and measured when the model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
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
    plan = _assign_batches(certified[0], certified[1:], large=large)
    library = certified[0]
    trials = [
        *(
            _describe_trial(member, index, plan, exact=_is_exact(member, library))
            for index, member in enumerate(certified)
        ),
        *refused,
    ]
    _log.info("runtimes_measured", runtimes=[item.as_dict() for item in trials])
    used_indices = {step.at for step in plan}
    for index, member in enumerate(certified[1:], 1):
        if index not in used_indices:
            member.member.close()
    members = {index: certified[index].member for index in sorted(used_indices - {0})}
    places = {index: place for place, index in enumerate([0, *members])}
    if not members:
        return RuntimeChoice(runtime=library.member.runtime, certificate=library.certificate, trials=tuple(trials))
    steps = [Step(rows=step.rows, at=places[step.at]) for step in plan]
    runtime = SharedRuntime(library.member, list(members.values()), steps)
    certificates = [*(certified[index].certificate for index in members), library.certificate]
    weakest = next((item for item in certificates if not item.bit_equal), library.certificate)
    return RuntimeChoice(runtime=runtime, certificate=weakest, trials=tuple(trials))


def _certify_candidate(candidate: RuntimeCandidate, reference: Reference, tolerance: float) -> _CertifiedRuntime:
    if candidate.open is None:
        raise PackageError(
            f"runtime {candidate.name!r}", str(candidate.problem), fix="do nothing: the CPU scores meanwhile"
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
            f"runtime {candidate.name!r}", f"failed its trial: {error}", fix="do nothing: the CPU scores meanwhile"
        ) from error
    if isinstance(runtime, ChildRuntime):
        # The last size has 4,096 rows, which is what `timeout_s` is for.
        runtime.timeout_s = max(_MIN_TIMEOUT_S, _SLACK * calibration.seconds[-1])
    reopen = partial(_reopen, candidate, reference, tolerance, certificate) if candidate.reopens else None
    return _CertifiedRuntime(member=RuntimeMember(runtime, calibration, reopen), certificate=certificate)


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


def _assign_batches(own: _CertifiedRuntime, others: Sequence[_CertifiedRuntime], *, large: bool) -> tuple[Step, ...]:
    """Return which of ``(own, *others)`` gets a batch: a bit-equal runtime by size, or always the same tolerant one."""
    members = [own, *others]
    exact_indices = [index for index, each in enumerate(members) if each is own or _is_exact(each, own)]
    steps = choose_steps([members[index].member.calibration for index in exact_indices])
    shared = tuple(Step(rows=step.rows, at=exact_indices[step.at]) for step in steps)
    sizes = SIZES[-1:] if large else SIZES
    for index, each in enumerate(members):
        if index not in exact_indices and all(
            each.member.calibration.is_faster(members[_runtime_index(shared, size)].member.calibration, size)
            for size in sizes
        ):
            return (Step(rows=1, at=index),)
    return shared


def _is_exact(member: _CertifiedRuntime, own: _CertifiedRuntime) -> bool:
    """Return whether it is bit-equal to the library's runtime, because both are bit-equal to the training library."""
    return member.certificate.bit_equal and own.certificate.bit_equal


def _runtime_index(plan: Sequence[Step], rows: int) -> int:
    return [step.at for step in plan if step.rows <= rows][-1]


def _describe_trial(member: _CertifiedRuntime, index: int, plan: Sequence[Step], *, exact: bool) -> RuntimeTrial:
    rows = [step.rows for step in plan if step.at == index]
    role_if_used: Role = "shared" if exact else "chosen"
    return RuntimeTrial(
        runtime=member.member.runtime_id,
        role="own" if index == 0 else role_if_used if rows else "slower",
        certificate=member.certificate,
        calibration=member.member.calibration,
        from_rows=min(rows, default=None),
    )
