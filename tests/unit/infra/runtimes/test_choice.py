"""Which runtimes score a model: certified, measured, chosen, and why."""

from __future__ import annotations

import numpy as np
import pytest

import skewless.infra.runtimes.choice
from skewless.contract.errors import PackageError
from skewless.infra.runtimes.candidates import RuntimeCandidate
from skewless.infra.runtimes.certification import Certificate, Reference, certify
from skewless.infra.runtimes.choice import Role, RuntimeChoice, choose
from skewless.infra.runtimes.port import Matrix, Runtime
from skewless.infra.runtimes.shared import SIZES, Calibration, SharedRuntime, Step
from tests.unit.infra.runtimes.standing_in import StandIn

ROWS = np.array([[0.0, 1.0], [2.0, 3.0], [-4.0, 5.0]])
TRUTH = StandIn("truth")
REFERENCE = Reference(ROWS, TRUTH.margin(ROWS), TRUTH.score(ROWS))
OFF = 2.0**-20


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runtimes take what they say."""

    def calibrate(runtime: Runtime, _: Matrix) -> Calibration:
        assert isinstance(runtime, StandIn)
        return runtime.calibration

    monkeypatch.setattr(skewless.infra.runtimes.choice, "calibrate", calibrate)


def own(off: float = 0.0) -> StandIn:
    """Return a library that takes a millisecond per row."""
    return StandIn("own-1", off=off, seconds=lambda rows: 1e-3 * rows)


def gpu(off: float = 0.0, name: str = "gpu-1") -> StandIn:
    """Return one that takes as long for any number of rows as the library for 20."""
    return StandIn(name, off=off, seconds=lambda _: 2e-2)


def fast(off: float = 0.0) -> StandIn:
    """Return one that is faster at every size."""
    return StandIn("fast-1", off=off, seconds=lambda rows: 1e-4 * rows)


def slow() -> StandIn:
    return StandIn("slow-1", seconds=lambda rows: 2e-3 * rows)


def chosen(
    mine: StandIn, *others: StandIn, tolerance: float = 0.0, large: bool = False, reopens: bool = False
) -> RuntimeChoice:
    def of(runtime: StandIn) -> RuntimeCandidate:
        return RuntimeCandidate(name=runtime.runtime_id.partition("-")[0], open=lambda: runtime, reopens=reopens)

    certificate = certify(mine, REFERENCE, tolerance=tolerance)
    return choose(mine, certificate, [of(each) for each in others], REFERENCE, tolerance=tolerance, large=large)


def roles(choice: RuntimeChoice) -> list[tuple[str, Role, int | None]]:
    return [(item.runtime, item.role, item.from_rows) for item in choice.trials]


def test_alone_the_library_scores_and_nothing_was_tried() -> None:
    mine = own()
    choice = chosen(mine)
    assert choice.runtime is mine
    assert choice.trials == ()


def test_bit_equal_ones_share_the_batches() -> None:
    mine, other = own(), gpu()
    choice = chosen(mine, other)
    assert isinstance(choice.runtime, SharedRuntime)
    assert choice.runtime.runtime_id == "own-1|gpu-1"
    (first, second) = choice.runtime.steps
    assert first == Step(rows=1, at=0)
    assert (second.at, second.rows) in {(1, 20), (1, 21)}
    assert roles(choice) == [("own-1", "own", 1), ("gpu-1", "shared", second.rows)]
    assert choice.certificate.runtime_id == "own-1"
    assert choice.certificate.bit_equal
    assert other.closed == 0
    choice.runtime.close()
    assert (mine.closed, other.closed) == (1, 1)


def test_what_is_slower_gets_none_and_is_closed() -> None:
    mine, other = own(), slow()
    choice = chosen(mine, other)
    assert choice.runtime is mine
    assert roles(choice) == [("own-1", "own", 1), ("slow-1", "slower", None)]
    assert (mine.closed, other.closed) == (0, 1)


def test_three_share() -> None:
    middle = StandIn("middle-1", seconds=lambda rows: 4e-3 + 1e-4 * rows)
    choice = chosen(own(), gpu(), middle)
    assert isinstance(choice.runtime, SharedRuntime)
    assert [step.at for step in choice.runtime.steps] == [0, 2, 1]
    assert [role for _, role, _ in roles(choice)] == ["own", "shared", "shared"]
    assert choice.runtime.runtime_id == "own-1|middle-1|gpu-1"


def test_one_of_several_is_closed_and_the_others_keep_their_batches() -> None:
    mine, lame, other = own(), slow(), gpu()
    choice = chosen(mine, lame, other)
    assert isinstance(choice.runtime, SharedRuntime)
    assert [member.runtime for member in choice.runtime.members] == [mine, other]
    rows = np.ones((500, 2))
    choice.runtime.score(rows)
    assert other.asked[-1] == 500
    assert (lame.closed, other.closed) == (1, 0)


def test_without_a_tolerance_a_difference_is_refused() -> None:
    mine, other = own(), fast(off=OFF)
    choice = chosen(mine, other)
    assert choice.runtime is mine
    assert roles(choice) == [("own-1", "own", 1), ("fast", "refused", None)]
    assert "differs from the library on 3 of 3 rows" in str(choice.trials[1].reason)
    assert other.closed == 1


def test_within_the_tolerance_one_that_is_always_faster_gets_all_batches() -> None:
    mine, other = own(), fast(off=OFF)
    choice = chosen(mine, other, tolerance=OFF)
    assert isinstance(choice.runtime, SharedRuntime)
    assert choice.runtime.steps == (Step(rows=1, at=1),)
    assert roles(choice) == [("own-1", "own", None), ("fast-1", "chosen", 1)]
    # The log is to say which, and that it is replayed within the tolerance.
    assert choice.runtime.runtime_id == "fast-1|own-1"
    assert (choice.certificate.runtime_id, choice.certificate.bit_equal) == ("fast-1", False)
    choice.runtime.score(np.ones((1, 2)))
    assert other.asked[-1] == 1


@pytest.mark.parametrize("large", [False, True])
def test_one_that_is_faster_at_some_sizes_only_is_for_large_batches_or_for_none(large: bool) -> None:  # noqa: FBT001
    mine, other = own(), gpu(off=OFF)
    choice = chosen(mine, other, tolerance=OFF, large=large)
    expected: list[tuple[str, Role, int | None]] = (
        [("own-1", "own", None), ("gpu-1", "chosen", 1)] if large else [("own-1", "own", 1), ("gpu-1", "slower", None)]
    )
    assert roles(choice) == expected
    assert other.closed == (0 if large else 1)


def test_a_tolerant_one_must_beat_what_shares_already() -> None:
    tolerant = StandIn("tolerant-1", off=OFF, seconds=lambda rows: 5e-4 * rows)
    choice = chosen(own(), gpu(), tolerant, tolerance=OFF)
    assert [role for _, role, _ in roles(choice)] == ["own", "shared", "slower"]
    assert choice.certificate.bit_equal
    quick = fast(off=OFF)
    exact = gpu()
    choice = chosen(own(), StandIn("exact-1", seconds=lambda rows: 9e-4 * rows), quick, tolerance=OFF)
    assert [role for _, role, _ in roles(choice)] == ["own", "slower", "chosen"]
    assert exact.closed == 0


def test_a_library_that_differs_itself_shares_with_nobody() -> None:
    """An own runtime within the tolerance has other bits than one that is exact: all batches go to one of them."""
    mine, other = own(off=OFF), gpu()
    choice = chosen(mine, other, tolerance=OFF)
    assert choice.runtime is mine
    assert roles(choice) == [("own-1", "own", 1), ("gpu-1", "slower", None)]
    choice = chosen(own(off=OFF), fast(), tolerance=OFF)
    assert isinstance(choice.runtime, SharedRuntime)
    assert choice.runtime.steps == (Step(rows=1, at=1),)
    assert roles(choice)[1] == ("fast-1", "chosen", 1)
    # Where it fails the library answers, which is within the tolerance only.
    assert not choice.certificate.bit_equal


def test_all_kinds_of_failure_refuse_only_the_one_that_failed() -> None:
    def raising(error: Exception) -> RuntimeCandidate:
        def opened() -> Runtime:
            raise error

        return RuntimeCandidate(name=f"of-{type(error).__name__}", open=opened)

    broken = gpu()
    broken.error = RuntimeError("device lost")
    mine = own()
    tried = [
        RuntimeCandidate(name="gpu", problem="no NVIDIA driver is installed"),
        raising(OSError("cannot allocate memory")),
        raising(PackageError("model", "is of another kind", fix="none")),
        RuntimeCandidate(name="broken", open=lambda: broken),
    ]
    choice = choose(mine, certify(mine, REFERENCE), tried, REFERENCE)
    assert choice.runtime is mine
    assert [(item.runtime, item.role) for item in choice.trials] == [
        ("own-1", "own"),
        ("gpu", "refused"),
        ("of-OSError", "refused"),
        ("of-PackageError", "refused"),
        ("broken", "refused"),
    ]
    reasons = [str(item.reason) for item in choice.trials[1:]]
    expected = ("no NVIDIA driver", "cannot allocate memory", "is of another kind", "device lost")
    assert all(part in reason for part, reason in zip(expected, reasons, strict=True))
    assert broken.closed == 1


def test_the_table_has_plain_values() -> None:
    choice = chosen(own(), gpu(), fast(off=OFF))
    first, second, third = [item.as_dict() for item in choice.trials]
    assert first == {
        "runtime": "own-1",
        "role": "own",
        "reason": None,
        "bit_equal": True,
        "largest_difference": 0.0,
        "from_rows": 1,
        "seconds": {str(size): 1e-3 * size for size in SIZES},
    }
    assert second["seconds"] == {str(size): 2e-2 for size in SIZES}
    assert (third["role"], third["bit_equal"], third["seconds"], third["from_rows"]) == ("refused", None, {}, None)


@pytest.mark.parametrize(
    ("fresh", "problem"),
    [
        (gpu(), None),
        (gpu(off=OFF), "differs from the library"),
        (gpu(name="gpu-2"), "has reopened as 'gpu-2'"),
    ],
)
def test_one_that_is_opened_again_is_certified_again(fresh: StandIn, problem: str | None) -> None:
    opened = iter([gpu(), fresh])
    candidate = RuntimeCandidate(name="gpu", open=lambda: next(opened), reopens=True)
    mine = own()
    choice = choose(mine, certify(mine, REFERENCE), [candidate], REFERENCE)
    assert isinstance(choice.runtime, SharedRuntime)
    reopen = choice.runtime.members[1]._reopen
    assert reopen is not None
    if problem is None:
        assert reopen() is fresh
    else:
        with pytest.raises(PackageError, match=problem):
            reopen()
        assert fresh.closed == 1


def test_one_that_shared_and_comes_back_within_a_tolerance_only_is_not_taken() -> None:
    fresh = gpu(off=OFF)
    opened = iter([gpu(), fresh])
    mine = own()
    certificate: Certificate = certify(mine, REFERENCE)
    candidate = RuntimeCandidate(name="gpu", open=lambda: next(opened), reopens=True)
    choice = choose(mine, certificate, [candidate], REFERENCE, tolerance=OFF)
    assert isinstance(choice.runtime, SharedRuntime)
    reopen = choice.runtime.members[1]._reopen
    assert reopen is not None
    with pytest.raises(PackageError, match="has other bits after reopening"):
        reopen()
    assert fresh.closed == 1
