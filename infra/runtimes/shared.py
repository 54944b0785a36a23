"""One model on several runtimes: each batch goes to the fastest, and the library's own answers where another fails."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import structlog

from infra.runtimes.calibration import Calibration, Step
from infra.runtimes.port import Matrix, Runtime, Scores
from skewless.errors import RequestError

_REST_SECONDS = 30.0
_MOST_FAILURES = 3  # in a row, after which a runtime is not tried again until the model is loaded anew
_log = structlog.get_logger()


class Member:
    """A certified runtime of a model.

    Args:
        runtime: what scores.
        calibration: how long it takes.
        reopen: opens and certifies it anew, where a runtime that failed once does not come back by itself.

    Attributes:
        batches: how many it answered.
        rows: in how many rows.
        failures: how many batches it failed on, which the library answered.
    """

    def __init__(self, runtime: Runtime, calibration: Calibration, reopen: Callable[[], Runtime] | None = None) -> None:
        self.runtime = runtime
        self.runtime_id = runtime.runtime_id
        self.calibration = calibration
        self.batches = self.rows = self.failures = 0
        self._reopen = reopen
        self._in_a_row = 0
        self._back_at: float | None = 0.0
        self._closed = False

    @property
    def is_ready(self) -> bool:
        """Say whether it may be asked."""
        return self._back_at is not None and (self._back_at == 0.0 or time.monotonic() >= self._back_at)

    def score(self, matrix: Matrix) -> Scores:
        """Return its scores."""
        scores = self.runtime.score(matrix)
        self.batches += 1
        self.rows += len(matrix)
        self._in_a_row, self._back_at = 0, 0.0
        return scores

    def fail(self, error: Exception, *, rest_s: float = _REST_SECONDS) -> None:
        """Put it aside for a while, or for good; what was not told before is logged."""
        self.failures += 1
        self._in_a_row += 1
        last = self._in_a_row >= _MOST_FAILURES
        self._back_at = None if last or self._reopen else time.monotonic() + rest_s
        if self._in_a_row == 1 or last:
            until = "the model is loaded again" if last else f"{rest_s:g} s are over"
            _log.error("runtime_failed", runtime=self.runtime_id, error=str(error), not_used_until=until)
        if self._reopen is not None and not last:
            threading.Thread(target=self._come_back, args=(rest_s,), name="runtime-reopen", daemon=True).start()

    def close(self) -> None:
        """Free it."""
        self._closed = True
        self.runtime.close()

    def _come_back(self, rest_s: float) -> None:
        time.sleep(rest_s)
        if self._closed or self._reopen is None:
            return
        try:
            runtime = self._reopen()
        except Exception as error:  # noqa: BLE001 - the library goes on answering
            self.fail(error, rest_s=rest_s)
            return
        if self._closed:
            runtime.close()
            return
        self.runtime, self._back_at = runtime, 0.0
        _log.info("runtime_is_back", runtime=self.runtime_id)


class SharedRuntime:
    """A Runtime made of several; see Runtime for the contract.

    Args:
        own: the library's own: it answers what no other does, margins and contributions too.
        others: certified besides.
        steps: which of ``(own, *others)`` a batch goes to, by its rows.
    """

    def __init__(self, own: Member, others: Sequence[Member], steps: Sequence[Step]) -> None:
        self.members = (own, *others)
        self.steps = tuple(steps)
        self._own = own
        self._from = [step.rows for step in steps]
        self._of = [self.members[step.at] for step in steps]
        used = dict.fromkeys(member.runtime_id for member in self._of)
        used.setdefault(own.runtime_id)
        self.runtime_id = "|".join(used)

    @property
    def n_features(self) -> int:
        """Return the width of the matrix."""
        return self._own.runtime.n_features

    @property
    def n_outputs(self) -> int:
        """Return the numbers per row."""
        return self._own.runtime.n_outputs

    def expected_s(self, rows: int) -> float:
        """Return how long so many rows take."""
        return self._member(rows).calibration.expected_s(rows)

    def margin(self, matrix: Matrix) -> Scores:
        """Return the library's margins."""
        return self._own.runtime.margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions of the fastest runtime for so many rows; of the library's own if that one fails."""
        member = self._member(len(matrix))
        if member is not self._own:
            try:
                return member.score(matrix)
            except RequestError:
                raise
            except Exception as error:  # noqa: BLE001 - out of memory, device lost: no request is lost for it
                member.fail(error)
        return self._own.score(matrix)

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the library's contributions."""
        return self._own.runtime.contributions(matrix)

    def close(self) -> None:
        """Free all."""
        for member in self.members:
            member.close()

    def _member(self, rows: int) -> Member:
        member = self._of[max(bisect_right(self._from, rows) - 1, 0)]
        return member if member is self._own or member.is_ready else self._own
