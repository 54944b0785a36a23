"""A scheduler process, until its stop: acquires the lease, runs jobs while it leads, and tries again if it loses it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.storage.leases import Lease, LeaseRenewal, Leases
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.training.scheduling.leader_term import LeaderTerm

LEASE = "scheduler"
_log = EventLogger()
_POLL_S = 0.1
_TRIES_PER_TTL = 10


class StopSignal:
    """A stop request, set by SIGINT and SIGTERM.

    A handler may interrupt the main thread anywhere, even while it holds a lock. Of the standard library's
    primitives that can wake the thread, only SimpleQueue is reentrant.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.is_urgent = False
        self._queue: SimpleQueue[None] = SimpleQueue()

    def request_stop(self) -> None:
        """Request a stop; the second request is urgent."""
        self.is_urgent = self.is_set
        self.is_set = True
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the next stop request."""
        with contextlib.suppress(Empty):
            self._queue.get(timeout=seconds)

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM as stop requests inside the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, lambda *_: self.request_stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@dataclass(kw_only=True)
class Candidate:
    """A process that runs the scheduler of a project whenever it is the leader.

    Args:
        start_term: creates a leader's term from its fencing token.
        stop_signal: set when the process must stop.
        is_holder: whether it holds the lease now; ``serve`` sets it.
    """

    leases: Leases
    ledger: Ledger
    clock: Clock
    start_term: Callable[[int], LeaderTerm]
    stop_signal: StopSignal
    is_holder: bool = False

    def serve(self) -> None:
        """Run until the stop signal is set; the database may be unavailable at times."""
        is_waiting, holder = False, _new_holder()
        while not self.stop_signal.is_set:
            # Before the request: the ttl of a lease that it acquires begins during it, so this side never counts more.
            requested_at = time.monotonic()
            try:
                lease = self.leases.acquire(LEASE, holder=holder)
            except StoreError as error:
                _log.warning("lease_not_requested", problem=error.problem)
                lease = None
            if lease is not None:
                self._lead(lease, requested_at)
                # With the same name it could get the token of this term again, if the release failed.
                holder = _new_holder()
            elif not is_waiting:
                _log.info("waiting_for_the_lease")
            is_waiting = lease is None
            self.stop_signal.wait(self.leases.ttl_s / _TRIES_PER_TTL)

    @contextmanager
    def alone(self) -> Iterator[LeaderTerm]:
        """Hold the lease during a block, for work in this process.

        Raises:
            ConflictError: another scheduler holds it.
            StoreError: the database is unavailable.
        """
        with self.leases.try_hold(LEASE) as lease:
            if lease is None:
                holder, fix = self.leases.read_holder(LEASE), "stop it first"
                raise ConflictError("lease of the scheduler", "is held by another scheduler", value=holder, fix=fix)
            term = self.start_term(lease.token)
            self._begin(lease)
            term.take_over()
            yield term

    def _begin(self, lease: Lease) -> None:
        # Before any work: from here on, writes of a former leader that was paused are rejected.
        self.ledger.begin_term(lease.token, lease.holder, self.clock.now_us())
        _log.info("lease_taken", token=lease.token, holder=lease.holder)

    def _lead(self, lease: Lease, requested_at: float) -> None:
        """Run until the lease is lost or the stop signal is set; then finish the running work, or kill it."""
        term = self.start_term(lease.token)
        # The release comes after the work has ended: the next leader must not start a job that still runs here.
        with self.leases.renew_until_end(lease, requested_at, term.send_heartbeats) as renewal:
            try:
                self._begin(lease)
                self.is_holder = True
                self._run(term, renewal)
                self._finish(term, renewal)
            except (ConflictError, StoreError) as error:
                # If a newer term exists, jobs of this one must not run next to its jobs.
                _log.warning("term_ended", token=lease.token, problem=error.problem)
                term.abandon(error.problem)
            finally:
                self.is_holder = False

    def _run(self, term: LeaderTerm, renewal: LeaseRenewal) -> None:
        is_consistent = False
        while renewal.is_held and not self.stop_signal.is_set:
            has_changed = False
            try:
                if not is_consistent:
                    # Also after an outage: the database may have recorded a start that it did not confirm.
                    term.take_over()
                is_consistent = True
                has_changed = term.step()
            except StoreError as error:
                is_consistent = False
                _log.warning("step_failed", problem=error.problem)
            if not has_changed:
                self.stop_signal.wait(_POLL_S)

    def _finish(self, term: LeaderTerm, renewal: LeaseRenewal) -> None:
        """Wait for running work while the lease is held, unless the stop is urgent."""
        while term.running and renewal.is_held and not self.stop_signal.is_urgent:
            try:
                term.finish()
            except StoreError as error:
                _log.warning("step_failed", problem=error.problem)
            time.sleep(_POLL_S / 2)
        if term.running:
            term.abandon("the scheduler had to stop immediately" if renewal.is_held else "the lease was lost")


def _new_holder() -> str:
    """Return a holder whose lease only expires: its jobs may live a little longer than the process."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
