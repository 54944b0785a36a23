"""A scheduler process: it takes the lease when it can, works while it holds it, and tries again when it has lost it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.jobs.lease_renewal import LeaseRenewal
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.online.port import Lease
from skewless.training.scheduling.leader_term import LeaderTerm
from skewless.training.scheduling.stop_signal import StopSignal

_log = structlog.get_logger()
_LOOK_S = 0.1
_TRIES_PER_TERM = 10


@dataclass(kw_only=True)
class Candidate:
    """Who would be the scheduler of a project.

    Args:
        shift: makes the work of one term from its fencing token.
        bell: rung when it shall stop.
        is_holder: whether it works now; written by ``serve``.
    """

    lease: Lease
    ledger: Ledger
    clock: Clock
    shift: Callable[[int], LeaderTerm]
    bell: StopSignal
    is_holder: bool = False
    _asked_at: float = 0.0

    def serve(self) -> None:
        """Work until the bell is rung; the store may go and come meanwhile."""
        waits = False
        while not self.bell.rung:
            try:
                token = self._take()
            except StoreError as error:
                _log.warning("lease_not_asked", problem=error.problem)
                token = None
            if token is not None:
                self._hold(token)
            elif not waits:
                _log.info("waiting_for_the_lease")
            waits = token is None
            self.bell.wait(self.lease.ttl_s / _TRIES_PER_TERM)

    @contextmanager
    def alone(self) -> Iterator[LeaderTerm]:
        """Hold the lease for a piece of work that is done at once.

        Raises:
            ConflictError: another scheduler holds it.
            StoreError: the store is away.
        """
        token = self._take()
        if token is None:
            holder, fix = self.lease.read_holder(), "stop it first"
            raise ConflictError("lease of the scheduler", "is held by another scheduler", value=holder, fix=fix)
        try:
            with LeaseRenewal(self.lease, on_renewed=lambda: None, acquired_at=self._asked_at):
                shift = self._begin(token)
                shift.take_over()
                yield shift
        finally:
            self._release()

    def _take(self) -> int | None:
        self._asked_at = time.monotonic()
        return self.lease.take(self.ledger.latest_token())

    def _begin(self, token: int) -> LeaderTerm:
        self.ledger.begin_term(token, self.lease.holder, self.clock.now_us())
        _log.info("lease_taken", token=token, holder=self.lease.holder)
        return self.shift(token)

    def _hold(self, token: int) -> None:
        """Work until the lease is lost or the bell is rung; then finish what is under way, or kill it."""
        try:
            shift = self._begin(token)
        except ConflictError as error:
            _log.warning("lease_lost", token=token, problem=error.problem)
            return
        with LeaseRenewal(self.lease, on_renewed=term.beat, acquired_at=self._asked_at) as holding:
            self.is_holder = True
            try:
                self._work(shift, holding)
            except ConflictError as error:
                shift.abandon(error.problem)
            else:
                self._leave(shift, holding)
            finally:
                self.is_holder = False
        if self.bell.rung:
            self._release()

    def _work(self, shift: LeaderTerm, holding: LeaseRenewal) -> None:
        shift.take_over()
        while holding.is_held and not self.bell.rung:
            if not shift.step():
                self.bell.wait(_LOOK_S)

    def _leave(self, shift: LeaderTerm, holding: LeaseRenewal) -> None:
        """Wait for what is under way, as long as the lease is held and nobody is in a hurry."""
        while shift.running and holding.is_held and not self.bell.rung_again:
            shift.finish()
            time.sleep(_LOOK_S / 2)
        if shift.running:
            shift.abandon("the scheduler was told to stop at once" if holding.is_held else "the lease was lost")

    def _release(self) -> None:
        try:
            self.lease.release()
        except StoreError as error:
            _log.warning("lease_not_released", problem=error.problem)
