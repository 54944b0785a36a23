"""A crowd that asks for more than a server can answer, and a few polite clients who ask now and then beside it."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.arrivals import Moments
from benchmarks.http_load import OK, Address, Line, Lines, quiet

_POLITE, _PAUSE_S = 4, 0.1
_TURN_S = 0.001
_now = time.perf_counter


@dataclass(frozen=True, kw_only=True)
class Crowded:
    """What became of all that was asked.

    Args:
        rate: answers a second, the polite clients' too.
        refusals: a second.
        offered: what was due of the crowd a second, sent or not.
        polite: share of the replies to the polite clients that were answers, not refusals.
        latencies: of the crowd's answers, seconds.
        polite_latencies: of theirs.
        turns: how long each turn of the load took, seconds: an answer is noticed that late at most.
    """

    rate: float
    refusals: float
    offered: float
    polite: float
    latencies: Moments
    polite_latencies: Moments
    turns: Moments


@dataclass
class _Tally:
    """What came back on some lines."""

    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    def take(self, line: Line) -> bool:
        """Take what arrived; say whether the reply is whole."""
        reply = line.receive()
        if reply is None:
            return False
        if reply.startswith(OK):
            self.latencies.append(_now() - line.begun)
        else:
            self.refused += 1
        return True


def crowd(
    address: Address,
    requests: Sequence[bytes],
    polite_requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate: float = math.inf,
) -> Crowded:
    """Ask on many connections, each of which asks again as soon as it has a reply, whatever that says.

    Args:
        polite_requests: what the polite clients ask, with a key of their own where the server has keys.
        rate: a second, of all together: what is due while no connection is free is not sent, as from a pool that is
            used up; infinite: no connection is ever without a request.
    """
    chance, place, due, polite_sent = random.Random(1), 0, 0, 0  # noqa: S311 - pauses
    many, few, turns = _Tally(), _Tally(), list[float]()
    with Lines(address, connections + _POLITE) as lines, quiet():
        idle = deque(lines.all[_POLITE:])
        pauses = {line: chance.random() * _PAUSE_S for line in lines.all[:_POLITE]}
        polite, begun, now = set(pauses), _now(), 0.0
        woke = begun
        while now < seconds:
            came = len(idle) if rate == math.inf else int(rate * now) - due
            due += came
            ready = [line for line, moment in pauses.items() if moment <= now]
            for line in ready:
                del pauses[line]
                line.send(polite_requests[polite_sent % len(polite_requests)])
                polite_sent += 1
            for line in [idle.popleft() for _ in range(min(came, len(idle)))]:
                line.send(requests[place % len(requests)])
                place += 1
            turns.append(_now() - woke)
            arrived = lines.arrived(_TURN_S, may_be_none=True)
            woke = _now()
            for line in arrived:
                if line not in polite:
                    if many.take(line):
                        idle.append(line)
                elif few.take(line):
                    pauses[line] = now + _PAUSE_S * (0.5 + chance.random())
            now = _now() - begun
    return Crowded(
        rate=(len(many.latencies) + len(few.latencies)) / now,
        refusals=(many.refused + few.refused) / now,
        offered=due / now,
        polite=len(few.latencies) / max(len(few.latencies) + few.refused, 1),
        latencies=np.array(many.latencies),
        polite_latencies=np.array(few.latencies),
        turns=np.array(turns),
    )
