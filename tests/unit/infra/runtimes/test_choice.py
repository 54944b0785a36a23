"""Which runtime scores a model: certified, measured, chosen, and why."""

from __future__ import annotations

import numpy as np
import pytest

import skewless.infra.models.runtimes.choice
from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.candidates import RuntimeCandidate
from skewless.infra.models.runtimes.certification import Reference, certify
from skewless.infra.models.runtimes.choice import Role, RuntimeChoice, choose, measure
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores
from tests.unit.infra.runtimes.standing_in import Seconds, StandIn
from tests.worlds.clock import SecondsClock

ROWS = np.array([[0.0, 1.0], [2.0, 3.0], [-4.0, 5.0]])
TRUTH = StandIn("truth")
REFERENCE = Reference(ROWS, TRUTH.margin(ROWS), TRUTH.score(ROWS))
OFF = 2.0**-20


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runtimes take what they say."""

    def measure(runtime: Runtime, _: Matrix, size: int) -> float:
        assert isinstance(runtime, StandIn)
        return runtime.seconds(size)

    monkeypatch.setattr(skewless.infra.models.runtimes.choice, "measure", measure)


def own(off: float = 0.0) -> StandIn:
    """Return a library that takes a millisecond per row."""
    return StandIn("own-1", off=off, seconds=lambda rows: 1e-3 * rows)


def gpu(off: float = 0.0) -> StandIn:
    """Return one that takes as long for any number of rows as the library for 100."""
    return StandIn("gpu-1", off=off, seconds=lambda _: 0.1)


def fast(off: float = 0.0) -> StandIn:
    """Return one that is faster for any number of rows."""
    return StandIn("fast-1", off=off, seconds=lambda rows: 1e-4 * rows)


def slow() -> StandIn:
    return StandIn("slow-1", seconds=lambda rows: 2e-3 * rows)


def chosen(mine: StandIn, *others: StandIn, tolerance: float = 0.0, batch_rows: int = 64) -> RuntimeChoice:
    def of(runtime: StandIn) -> RuntimeCandidate:
        return RuntimeCandidate(name=runtime.runtime_id.partition("-")[0], open=lambda: runtime)

    certificate = certify(mine, REFERENCE, tolerance=tolerance)
    tried = [of(each) for each in others]
    return choose(mine, certificate, tried, REFERENCE, tolerance=tolerance, batch_rows=batch_rows)


def roles(choice: RuntimeChoice) -> list[tuple[str, Role]]:
    return [(item.runtime, item.role) for item in choice.trials]


def scorer(choice: RuntimeChoice) -> Runtime:
    """Return the runtime that scores, of two."""
    assert isinstance(choice.runtime, FallbackRuntime)
    return choice.runtime.chosen


def test_alone_the_library_scores_and_nothing_was_tried() -> None:
    mine = own()
    choice = chosen(mine)
    assert choice.runtime is mine
    assert choice.trials == ()


def test_the_fastest_scores_and_the_library_stays_behind_it() -> None:
    mine, lame, other = own(), slow(), fast()
    choice = chosen(mine, lame, other)
    assert scorer(choice) is other
    assert choice.runtime.runtime_id == "fast-1|own-1"
    assert roles(choice) == [("own-1", "own"), ("slow-1", "slower"), ("fast-1", "chosen")]
    assert (choice.certificate.runtime_id, choice.certificate.bit_equal) == ("own-1", True)
    assert (mine.closed, lame.closed, other.closed) == (0, 1, 0)
    choice.runtime.close()
    assert (mine.closed, other.closed) == (1, 1)


@pytest.mark.parametrize(("batch_rows", "is_chosen"), [(64, False), (4_096, True)])
def test_the_size_of_a_batch_decides(batch_rows: int, is_chosen: bool) -> None:  # noqa: FBT001
    mine, other = own(), gpu()
    choice = chosen(mine, other, batch_rows=batch_rows)
    assert roles(choice) == [("own-1", "own"), ("gpu-1", "chosen" if is_chosen else "slower")]
    assert (choice.runtime is mine, other.closed) == ((False, 0) if is_chosen else (True, 1))


@pytest.mark.parametrize(("share", "role"), [(0.92, "slower"), (0.9, "chosen")])
def test_a_gain_of_a_tenth_is_needed(share: float, role: Role) -> None:
    choice = chosen(own(), StandIn("other-1", seconds=lambda rows: share * 1e-3 * rows))
    assert choice.trials[1].role == role


def test_without_a_tolerance_a_difference_is_refused() -> None:
    mine, other = own(), fast(off=OFF)
    choice = chosen(mine, other)
    assert choice.runtime is mine
    assert roles(choice) == [("own-1", "own"), ("fast", "refused")]
    assert "differs from the library on 3 of 3 rows" in str(choice.trials[1].reason)
    assert other.closed == 1


def test_within_the_tolerance_it_scores_and_the_log_says_so() -> None:
    other = fast(off=OFF)
    choice = chosen(own(), other, tolerance=OFF)
    assert scorer(choice) is other
    assert (choice.certificate.runtime_id, choice.certificate.bit_equal) == ("fast-1", False)


def test_where_the_library_is_within_the_tolerance_only_its_certificate_counts() -> None:
    """Where the chosen runtime fails the library answers."""
    choice = chosen(own(off=OFF), fast(), tolerance=OFF)
    assert roles(choice)[1] == ("fast-1", "chosen")
    assert (choice.certificate.runtime_id, choice.certificate.bit_equal) == ("own-1", False)


def test_all_kinds_of_failure_refuse_only_the_one_that_failed() -> None:
    def raising(error: Exception) -> RuntimeCandidate:
        def opened() -> Runtime:
            raise error

        return RuntimeCandidate(name=f"of-{type(error).__name__}", open=opened)

    broken = gpu()
    broken.error = RuntimeError("device lost")
    mine = own()
    tried = [
        RuntimeCandidate(name="gpu", open=fast, problem="no NVIDIA driver is installed"),
        raising(OSError("cannot allocate memory")),
        raising(PackageError("model", "is of another kind", fix="none")),
        RuntimeCandidate(name="broken", open=lambda: broken),
    ]
    choice = choose(mine, certify(mine, REFERENCE), tried, REFERENCE)
    assert choice.runtime is mine
    assert roles(choice) == [
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
    first, second = [item.as_dict() for item in chosen(own(), fast(off=OFF), slow()).trials][::2]
    assert first == {
        "runtime": "own-1",
        "role": "own",
        "reason": None,
        "bit_equal": True,
        "largest_difference": 0.0,
        "rows": 64,
        "seconds": 1e-3 * 64,
    }
    assert second["role"] == "refused"
    assert (second["bit_equal"], second["largest_difference"]) == (None, None)
    assert (second["rows"], second["seconds"]) == (None, None)


def timed(seconds: Seconds) -> tuple[float, StandIn]:
    clock = SecondsClock(1_000.0)
    runtime = StandIn("r", seconds=seconds, clock=clock)
    return measure(runtime, ROWS, 64, clock), runtime


def test_a_quick_call_is_measured_ten_times_after_one_to_warm_up() -> None:
    found, runtime = timed(lambda rows: 1e-6 * rows)
    assert found == pytest.approx(64e-6)
    assert runtime.asked == [64] * 11


def test_a_slow_call_is_measured_once() -> None:
    found, runtime = timed(lambda _: 0.5)
    assert found == pytest.approx(0.5)
    assert runtime.asked == [64] * 2


def test_a_call_in_which_the_machine_did_something_else_does_not_count() -> None:
    taken = iter([1e-3, 2e-3, 0.09, 2e-3, 3e-3, *[2e-3] * 100])
    assert timed(lambda _: next(taken))[0] == pytest.approx(2e-3)


def test_the_matrix_is_what_a_runtime_takes() -> None:
    seen: list[tuple[tuple[int, ...], bool]] = []

    class Looking(StandIn):
        def score(self, matrix: Matrix) -> Scores:
            seen.append((matrix.shape, matrix.flags.c_contiguous))
            assert np.array_equal(matrix[:3], ROWS[: len(matrix)])
            return super().score(matrix)

    for size in (1, 64, 4_096):
        measure(Looking("r"), ROWS, size, lambda: 0.0)
    assert set(seen) == {((size, 2), True) for size in (1, 64, 4_096)}
