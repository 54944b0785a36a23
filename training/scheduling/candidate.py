"""A scheduler process: acquires the lease, runs jobs while it is the leader, and tries again if it loses the lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.jobs.lease_renewal import LeaseRenewal
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.online.port import StoreLease
from skewless.infra.telemetry.logger import EventLogger
from skewless.training.scheduling.leader_term import LeaderTerm
from skewless.training.scheduling.stop_signal import StopSignal

_log = EventLogger()
_POLL_S = 0.1
_TRIES_PER_TTL = 10


@dataclass(kw_only=True)
class Candidate:
    """A process that runs the scheduler of a project whenever it is the leader.

    Args:
        start_term: creates a leader's term from its fencing token.
        stop_signal: set when the process must stop.
        is_holder: whether it holds the lease now; ``serve`` sets it.
    """

    lease: StoreLease
    ledger: Ledger
    clock: Clock
    start_term: Callable[[int], LeaderTerm]
    stop_signal: StopSignal
    is_holder: bool = False
    _requested_at: float = 0.0

    def serve(self) -> None:
        """Run until the stop signal is set; the store may be unavailable at times."""
        is_waiting = False
        while not self.stop_signal.is_set:
            try:
                token = self._acquire()
            except StoreError as error:
                _log.warning("lease_not_requested", problem=error.problem)
                token = None
            if token is not None:
                self._lead(token)
            elif not is_waiting:
                _log.info("waiting_for_the_lease")
            is_waiting = token is None
            self.stop_signal.wait(self.lease.ttl_s / _TRIES_PER_TTL)

    @contextmanager
    def alone(self) -> Iterator[LeaderTerm]:
        """Hold the lease during a block, for work in this process.

        Raises:
            ConflictError: another scheduler holds it.
            StoreError: the store does not answer.
        """
        token = self._acquire()
        if token is None:
            holder, fix = self.lease.read_holder(), "stop it first"
            raise ConflictError("lease of the scheduler", "is held by another scheduler", value=holder, fix=fix)
        try:
            # Each launch of such a term returns completed work, so nothing needs heartbeats.
            with LeaseRenewal(self.lease, on_renewed=lambda: None, acquired_at=self._requested_at):
                term = self._begin_term(token)
                term.take_over()
                yield term
        finally:
            self._release()

    def _acquire(self) -> int | None:
        # Before the request: the ttl of a lease that it acquires begins during it, so this side never counts more.
        self._requested_at = time.monotonic()
        # A store that lost its data would count from 1 again; the ledger's number keeps tokens growing.
        return self.lease.take(self.ledger.latest_token())

    def _begin_term(self, token: int) -> LeaderTerm:
        # Before any work: from here on, writes of a former leader that was paused are rejected.
        self.ledger.begin_term(token, self.lease.holder, self.clock.now_us())
        _log.info("lease_taken", token=token, holder=self.lease.holder)
        return self.start_term(token)

    def _lead(self, token: int) -> None:
        """Run until the lease is lost or the stop signal is set; then finish the running work, or kill it."""
        try:
            term = self._begin_term(token)
        except ConflictError as error:
            _log.warning("lease_lost", token=token, problem=error.problem)
            return
        with LeaseRenewal(self.lease, on_renewed=term.send_heartbeats, acquired_at=self._requested_at) as renewal:
            self.is_holder = True
            try:
                self._run(term, renewal)
            except ConflictError as error:
                # A newer term exists: jobs of this one must not run next to its jobs.
                term.abandon(error.problem)
            else:
                self._finish(term, renewal)
            finally:
                self.is_holder = False
        if self.stop_signal.is_set:
            # After the work has ended: the next leader must not start a job that still runs here. A lost lease is not
            # released.
            self._release()

    def _run(self, term: LeaderTerm, renewal: LeaseRenewal) -> None:
        term.take_over()
        while renewal.is_held and not self.stop_signal.is_set:
            if not term.step():
                self.stop_signal.wait(_POLL_S)

    def _finish(self, term: LeaderTerm, renewal: LeaseRenewal) -> None:
        """Wait for running work while the lease is held, unless the stop is urgent."""
        while term.running and renewal.is_held and not self.stop_signal.is_urgent:
            term.finish()
            time.sleep(_POLL_S / 2)
        if term.running:
            term.abandon("the scheduler had to stop immediately" if renewal.is_held else "the lease was lost")

    def _release(self) -> None:
        try:
            self.lease.release()
        except StoreError as error:
            _log.warning("lease_not_released", problem=error.problem)
