"""A feature is added while server and stream worker run under load: how long it takes, and what predictions lose."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.change_check import check_values, prove
from benchmarks.change_project import Shape, add_aggregation, write_project
from benchmarks.change_traffic import COUNTED, EVENTS_S, PREDICTED, STOP, Second, Sent, predict, send
from benchmarks.change_watch import ANSWERED, IN_FORCE, LIVE, ON_SERVER, ON_STREAM, Watch
from benchmarks.contestant import Contestant, ContestantError
from benchmarks.http_wire import post
from benchmarks.latency import quantile
from benchmarks.programs import run_skewless
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.served import Running, running, skewless_server
from benchmarks.server import own_server
from benchmarks.serving_race import seconds
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.storage.project_state import ProjectState

REACH = 0.9
BEFORE = "before"
WAYS = {"commands as they are": 0, "commands at nice 10": 10}
_BEFORE_S = 20.0
_ASKED = 2_000
_LONGEST_S = 300.0
_WORKER = "from skewless.cli import main; main()"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One change, with all that came in meanwhile.

    Args:
        laps: seconds of each verb.
        moments: seconds since 1970, by name; see ``Watch``, and ``apply``, ``train``: when the verb began.
        windows: of the load, from the beginning to the end.
    """

    laps: Mapping[str, float]
    moments: Mapping[str, float]
    windows: Sequence[Second]
    sent: Sent

    def within(self, first: str, last: str) -> list[Second]:
        """Return the windows of the load that lie wholly between two moments, or else the one at the first."""
        begin, end = self.moments[first], self.moments[last]
        inside = [window for window in self.windows if begin <= window.begun and window.ended <= end]
        return inside or [min(self.windows, key=lambda window: abs(window.begun - begin))]

    def waits(self, first: str, last: str) -> list[float]:
        """Return how many seconds events that were sent between two moments took to be counted."""
        begin, end = self.moments[first], self.moments[last]
        return [waited for sent, waited in self.sent.seen if begin <= sent <= end] or [self.sent.seen[0][1]]


Quantity = Callable[[Measurement, str, str], float]


def run() -> list[Result]:
    """Add an aggregation to a view of a million events, once for each way to run the commands."""
    shape = Shape(
        n_payments=scaled(1_000_000, least=2_000),
        n_cards=scaled(50_000),
        n_labels=scaled(100_000, least=2_000),
        rounds=scaled(200, least=10),
    )
    rows: list[Result] = []
    for way, nice in WAYS.items():
        what = f"change: {shape.n_payments:,} events, {EVENTS_S} more a second, {way}:"
        rows += _rows(_measured(shape, nice), what)
    return rows


def _measured(shape: Shape, nice: int) -> Measurement:
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        repo = Path(name) / "repo"
        history = write_project(repo, shape, time.time_ns() // 1_000)
        for verb in ("apply", "import", "backfill", "train"):
            run_skewless(repo, verb, url=url)
        first = post("/predict", b'{"rows": [{"card_id": 1}]}')
        with _stream_worker(repo, url), running(skewless_server(repo, url, first), None) as server:
            measured = _changed(repo, url, server, shape, nice)
            check_values(server.address, history.and_then(measured.sent.payments), shape.n_cards)
        answered = sum(window.answered for window in measured.windows)
        Contestant(name="replay", entrant=prove, arguments={"repo": str(repo), "least": answered}).run()
        return measured


def _changed(repo: Path, url: str, server: Running, shape: Shape, nice: int) -> Measurement:
    """Change the project under load."""
    signals, laps = repo.parent, {}
    watch = Watch(state=repo / ".skewless", url=url, address=server.address)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        cards = shape.cards(np.random.default_rng(14), _ASKED).tolist()
        requests = [post("/predict", b'{"rows": [{"card_id": %d}]}' % card) for card in cards]
        load = pool.submit(predict, signals, server.address, requests, max(seconds(1.0), 0.1))
        sender = pool.submit(send, signals, server.address, shape)
        try:
            _wait_for(signals, load, sender)
            watch.moments[BEFORE] = time.time()
            time.sleep(max(seconds(_BEFORE_S), 0.5))
            with watch.looking():
                add_aggregation(repo)
                for verb, reached in (("apply", LIVE), ("train", ANSWERED)):
                    watch.moments[verb] = time.time()
                    run_skewless(repo, verb, url=url, nice=nice)
                    laps[verb] = time.time() - watch.moments[verb]
                    watch.until(reached, _LONGEST_S)
                    _raise_failure(load, sender)
        finally:
            (signals / STOP).touch()
        return Measurement(laps=laps, moments=watch.moments, windows=load.result(), sent=sender.result())


def _raise_failure(*under_way: Future[Any]) -> None:
    for each in under_way:
        if each.done():
            each.result()


def _wait_for(signals: Path, load: Future[Any], sender: Future[Any]) -> None:
    """Wait until both are under way: the worker has read the ids of the log, and the server is warm."""
    deadline = time.monotonic() + _LONGEST_S
    while not all((signals / name).exists() for name in (PREDICTED, COUNTED)):
        _raise_failure(load, sender)
        if time.monotonic() > deadline:
            raise ContestantError("no event is counted")
        time.sleep(0.05)


@contextmanager
def _stream_worker(repo: Path, url: str) -> Iterator[None]:
    """Run a stream worker, as a user starts it."""
    log = repo.parent / "stream.log"
    command = [sys.executable, "-c", _WORKER, "stream", "--repo", str(repo), "--json"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, "SKEWLESS_REDIS_URL": url}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + _LONGEST_S
            while not _takes_events(repo / ".skewless"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ContestantError(f"the stream worker does not run:\n{log.read_text()[-2_000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _takes_events(state: Path) -> bool:
    sources = [source for each in read_processes(ProjectState(state)) for source in each.detail.get("sources", ())]
    return any(source["partitions"] for source in sources)


def _rows(done: Measurement, what: str) -> list[Result]:
    at, laps = done.moments, done.laps
    times = {
        "`apply`": laps["apply"],
        "from the applied plan to the server on it": at[ON_SERVER] - at[IN_FORCE],
        "from the applied plan to the stream worker on it": at[ON_STREAM] - at[IN_FORCE],
        "from the applied plan to its windows live": at[LIVE] - at[IN_FORCE],
        "`train`": laps["train"],
        "from `train` to the first prediction of its version": at[ANSWERED] - at["train"],
    }
    rows = [Result(name=f"{what} {name}", value=s, unit="s", against="-", ratio=None) for name, s in times.items()]
    phases = {
        "from `apply` to the new version": ("apply", ANSWERED),
        "while states are built": (IN_FORCE, LIVE),
        "while it trains": ("train", ANSWERED),
    }
    for phase, (first, last) in phases.items():
        target = REACH if first == "apply" else None
        rows.append(_compared(done, f"{what} predictions {phase}", "requests/s", _rate, (first, last), target))
    whole, span = ("apply", ANSWERED), "from `apply` to the new version"
    rows += [
        _compared(done, f"{what} predictions {span}, {share}", "ms", partial(_latency, share), whole)
        for share in ("p50", "p99")
    ]
    return rows + [
        _compared(done, f"{what} event sent to counted, {span}, p{share}", "ms", partial(_wait, share), whole)
        for share in (50, 99)
    ]


def _compared(
    done: Measurement, name: str, unit: str, quantity: Quantity, phase: tuple[str, str], target: float | None = None
) -> Result:
    """Return a row: a quantity in a phase against before the change."""
    value, before = quantity(done, *phase), quantity(done, BEFORE, "apply")
    against = f"before ({before:,.0f} {unit})" if before > 1_000 else f"before ({before:.3g} {unit})"
    return Result(name=name, value=value, unit=unit, against=against, ratio=value / before, target=target)


def _rate(done: Measurement, first: str, last: str) -> float:
    return statistics.median(window.rate for window in done.within(first, last))


def _latency(share: str, done: Measurement, first: str, last: str) -> float:
    return statistics.median({"p50": window.p50, "p99": window.p99}[share] for window in done.within(first, last))


def _wait(share: int, done: Measurement, first: str, last: str) -> float:
    return quantile(np.array(done.waits(first, last)), share / 100) * 1e3
