"""The promises of a project on several hosts, counted after a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.log_columns import REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import open_prediction_log, prediction_files
from tests.nightly.hosts.traffic import ClientTraffic, SentEvent, expected_features, predict
from tests.worlds.waiting import eventually
from tests.worlds.windowed import CARRIERS

Counts = dict[str, int]


def count_events(state: ProjectState, accepted: Iterable[SentEvent]) -> Counts:
    """Return how many accepted events are not in the log, and how often one is there once more."""
    logged = Counter(
        row["landing"]
        for name in log_partitions(state, "landings")
        for rows in PartitionLog(state, name).read(columns=["landing", REJECT])
        for row in rows.to_pylist()
        if row[REJECT] is None
    )
    sent = {event.id for event in accepted}
    return {
        "events accepted": len(sent),
        "events lost": len(sent - logged.keys()),
        "events counted twice": sum(logged.values()) - len(logged),
        "events from nowhere": len({name for name in logged if name.startswith("e")} - sent),
    }


def count_wrong_values(urls: Iterable[str], accepted: list[SentEvent], fleets: Mapping[str, float]) -> Counts:
    """Return how many values of the servers differ from plain Python over the accepted events and published facts."""
    compared = wrong = 0
    for url in urls:
        status, body = eventually(lambda: predict(url), lambda reply: reply[0] == 200)  # noqa: B023 - called here
        assert status
        wanted = expected_features(accepted, body["t_us"])
        for carrier, row in zip(CARRIERS, body["predictions"], strict=True):
            seen = row["features"]
            values = seen["carrier_now__landings_1h"], seen["carrier_now__mean_delay_1h"], seen["facts__fleet"]
            compared += len(values)
            wanted_values = *wanted[carrier], fleets[carrier]
            wrong += sum(one != other for one, other in zip(values, wanted_values, strict=True))
    return {"values compared": compared, "values wrong": wrong}


def count_runs(state: ProjectState, logs: Iterable[Path]) -> Counts:
    """Return how many ticks the schedulers have run, and how many of them twice, by the ledger and by their logs."""
    runs = Ledger(state).read_latest_first()
    ticks = Counter((run.id.job, run.id.tick_us) for run in runs if run.id.attempt == 1)
    started: Counter[str] = Counter()
    for log in logs:
        started.update(item["run"] for item in events_of(log, "run_started"))
    states = Counter(run.state for run in runs)
    return {
        "ticks": len(ticks),
        "ticks run twice": sum(n - 1 for n in ticks.values()) + sum(n - 1 for n in started.values()),
        **{f"runs of state {name!r}": n for name, n in sorted(states.items())},
    }


def count_predictions(states: Sequence[ProjectState], traffic: ClientTraffic) -> Counts:
    """Return how many predictions clients have received, and how many of them are not in the log, or twice.

    Each host ships what is on its disk; the host of the last state, which has served nothing, must see it all.
    """
    for state in states:
        open_prediction_log(state)
    logged: Counter[str] = Counter()
    for path in prediction_files(states[-1]):
        logged.update(_text(value) for value in pq.read_table(path, columns=["id"])["id"].to_pylist())
    received = traffic.prediction_ids()
    return {
        "predictions received": len(received),
        "predictions not logged": sum(not logged[name] for name in received),
        "predictions logged twice": sum(n - 1 for n in logged.values()),
    }


def count_replayed(ask: Callable[..., dict[str, Any]]) -> Counts:
    """Return how many logged predictions the replay compared, and how many are different."""
    reply = ask("replay")
    return {"predictions replayed": int(reply["compared"]), "predictions different": int(reply["different"])}


def events_of(log: Path, event: str) -> list[dict[str, Any]]:
    """Return the log lines of a program that are about an event; it logs JSON."""
    lines = log.read_text().splitlines() if log.exists() else []
    bodies = [json.loads(line) for line in lines if line.startswith("{")]
    return [body for body in bodies if body.get("event") == event]


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
