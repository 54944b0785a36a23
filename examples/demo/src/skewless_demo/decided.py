"""Decisions about the events of the test period, as a program receives them from their sink."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.clock import to_us
from skewless.contract.decisions import DecisionStream
from skewless.contract.sinks import RedisStreamSink
from skewless.infra.ingest.streams.redis_link import RedisLink
from skewless.infra.reads.offline.as_of import TIME
from skewless_decisions.decision_log import DecisionLog
from skewless_demo.outcomes import SentOutcomes
from skewless_demo.tour_state import TourState, json_rows, wait_for

Decision = dict[str, Any]  # a message of the sink
_MILLISECOND = 1_000
_Entry = tuple[bytes, dict[bytes, bytes]]


@dataclass(kw_only=True)
class ReceivedDecisions:
    """The decisions of a stream, matched to the label rows of its model by their inputs.

    Args:
        stream: the decision stream.
        key: of the Redis stream of its sink.
        link: to that Redis.
        log: of all decisions.
        outcomes: of the model; they get the id of each decision.
        numbers: number of the label row by its inputs and its event time in milliseconds.
        decisions: by the number of the label row.
        unmatched: number of decisions without a label row, as about a flight that has not landed.
    """

    stream: DecisionStream
    key: str
    link: RedisLink
    log: DecisionLog
    outcomes: SentOutcomes
    numbers: dict[tuple[Any, ...], int]
    decisions: dict[int, Decision] = field(default_factory=dict)
    unmatched: int = 0
    _last: bytes = b"0"

    @classmethod
    def of(cls, tour: TourState, outcomes: SentOutcomes) -> ReceivedDecisions | None:
        """Return the decisions of a model from now on; None: no stream of it has a sink in the project's Redis."""
        for stream, sink in redis_sinks(tour):
            if stream.model == outcomes.spec.name:
                rows = json_rows(tour.plan_of(outcomes.spec), outcomes.rows)
                horizon = outcomes.spec.as_dict()["horizon"]
                times = [(t + horizon) // _MILLISECOND for t in outcomes.rows[TIME].to_pylist()]
                received = cls(
                    stream=stream,
                    key=sink.stream,
                    link=RedisLink(tour.project.streams.stream_url, sink.timeout_s),
                    log=DecisionLog(tour.project.state),
                    outcomes=outcomes,
                    numbers={(*row.values(), at): n for n, (row, at) in enumerate(zip(rows, times, strict=True))},
                )
                client: Any = received.link.client()
                received._last = next((entry for entry, _ in client.xrevrange(sink.stream, count=1)), b"0")
                return received
        return None

    def receive(self) -> None:
        """Read the decisions that have come since the last call; one that comes again changes nothing."""
        client: Any = self.link.client()
        entries: list[_Entry] = client.xrange(self.key, min=b"(" + self._last)
        for entry, fields in entries:
            self._last = entry
            decision = json.loads(fields[b"decision"])
            inputs = [decision["inputs"][name] for name in self.outcomes.names]
            number = self.numbers.get((*inputs, _microseconds(decision["event_time"]) // _MILLISECOND))
            if number is None:
                self.unmatched += 1
            elif number not in self.decisions:
                self.decisions[number] = decision
                self.outcomes.add([number], [decision["id"]], _microseconds(decision["decided_at"]))

    def wait(self, check: Callable[[], None], seconds: float = 30.0) -> None:
        """Receive decisions until all that are in the log have come.

        Args:
            check: raises if the worker has ended.

        Raises:
            PlaceError: the sink took too long.
        """
        for _ in wait_for(f"sink of {self.stream.name!r}", "does not deliver in time", "stream.log", seconds):
            if len(self.decisions) + self.unmatched >= self._count_logged():
                return
            check()
            self.receive()

    def scores(self) -> npt.NDArray[np.float64]:
        """Return the score of each label row, NaN without a decision."""
        scores = np.full(self.outcomes.rows.num_rows, np.nan)
        for number, decision in self.decisions.items():
            scores[number] = decision["score"]
        return scores

    def line(self) -> str:
        """Return what was decided, in a sentence."""
        actions = ", ".join(f"{action} {count:,}" for action, count in self._count("action").items())
        sent = f"{len(self.outcomes.sent):,} outcomes sent"
        return f"{self.outcomes.spec.name} decided {len(self.decisions):,} {self.stream.source}: {actions}; {sent}"

    def facts(self) -> dict[str, Any]:
        """Return the numbers of decisions and outcomes."""
        return {
            "decided": len(self.decisions),
            "late": sum(decision["late"] for decision in self.decisions.values()),
            "unmatched": self.unmatched,
            "actions": self._count("action"),
            "versions": self._count("version"),
            "outcomes": len(self.outcomes.sent),
        }

    def close(self) -> None:
        """Close the connection."""
        self.link.close()

    def _count_logged(self) -> int:
        positions = self.log.list_positions()
        return sum(at.decided for name, at in positions.items() if name.startswith(f"{self.stream.name}/"))

    def _count(self, name: str) -> dict[str, int]:
        return dict(sorted(Counter(str(decision[name]) for decision in self.decisions.values()).items()))


def _microseconds(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


def redis_sinks(tour: TourState) -> Iterator[tuple[DecisionStream, RedisStreamSink]]:
    """Yield the decision streams with a sink in the project's Redis, and that sink."""
    for stream in tour.project.applied.decisions:
        for sink in stream.sinks:
            if isinstance(sink, RedisStreamSink) and sink.url_env is None and sink.format == "json":
                yield stream, sink
                break


def prove(tour: TourState, decision: Decision) -> tuple[str, bool]:
    """Recompute a decision from the log; return a sentence about it, and whether it is equal bit for bit."""
    proof = tour.project.why(decision["id"]).proof
    inputs = " ".join(str(value) for value in decision["inputs"].values() if isinstance(value, str))
    reasons = f" ({', '.join(decision['reasons'])})" if decision["reasons"] else ""
    text = f"{decision['decided_at'][5:16]} {inputs}: {decision['score']:.3f}, {decision['action']}{reasons}"
    if proof is not None and proof.ok:
        return f"{text}; recomputed from the log: equal, bit for bit", True
    return f"{text}; {'not proven' if proof is None else proof.lines()[0]}", False
