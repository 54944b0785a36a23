"""One project that lives: its clock, programs, doors and verbs, and what must be true after each change."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from skewless.contract.clock import OffsetClock
from skewless.project import Project
from tests.nightly.second_week import project as files
from tests.nightly.second_week.data import TABLE, Happenings, Raw, write_events, write_facts, write_labels
from tests.nightly.second_week.declared import Declared, Source, View, Window
from tests.nightly.second_week.judge import Oracle
from tests.nightly.second_week.oracle import NEVER, Item
from tests.nightly.second_week.processes import LivingServer, Load, Program, predict, row
from tests.worlds.command_line import Said, run

SECOND = 1_000_000
_PATIENCE_S = 240.0
_STEP_S = 0.3
_EVENTS_AT_FIRST = {"clicks": 500, "visits": 200}
Made = list[tuple[Raw, Item]]


class LivingProject:
    """The project and everything around it.

    Args:
        repo: a folder that does not exist yet.
        seed: of all chance.
        workers: processes of the prediction server.
        pause_s: between two predictions of the load.
    """

    def __init__(self, repo: Path, seed: int, *, workers: int = 1, pause_s: float = 0.15) -> None:
        self.repo, self.chance = repo, random.Random(seed)
        self.declared = files.first()
        self.models = tuple(model.name for model in self.declared.models)
        self.happenings = Happenings(random.Random(seed + 1))
        self.judge = Oracle(self.happenings.history, {})
        self.champions: dict[str, list[str]] = {model: [] for model in self.models}
        self.files: dict[Path, tuple[Source, list[Raw]]] = {}
        self.fact_files: dict[Path, list[Item]] = {}
        self._open: list[Item] = []
        self._asking = random.Random(seed + 3)
        self._clock = OffsetClock.create(repo / "clock")
        self._clock.set(files.NOW)
        repo.joinpath("feature_store.yaml").write_text(files.CONFIG)
        self._project = Project(repo)
        self.server = LivingServer(repo, self._project.state.folder, "--workers", str(workers))
        self.worker = Program(repo, "stream", "--json")
        self.scheduler = Program(repo, "scheduler", "--json")
        self.load = Load(self.server, self.models, random.Random(seed + 2), pause_s)

    # -- life ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def living(self) -> Iterator[None]:
        """Bring the project to life as the documentation says, and end it."""
        try:
            self._begin()
            yield
        finally:
            if self.load.is_running:
                self.load.stop()
            for program in (self.server, self.worker, self.scheduler):
                program.kill()
            self._project.close()
            self._project.private.stop()

    def _begin(self) -> None:
        self.repo.joinpath("skewless.yaml").write_text(files.settings())
        files.write(self.repo, self.declared)
        write_labels(self.repo / "data/labels.parquet", self.chance, files.NOW)
        for source in self.declared.sources:
            self.history_file(source, "first", self.happenings.old(source, _EVENTS_AT_FIRST[source.name], files.NOW))
        self.fact_file("first", self.happenings.facts(60, files.NOW - 3_600 * SECOND, days=4.0))
        assert self._project.redis_url
        self.done("apply")
        self.done("import")
        self.done("backfill")
        self.done("materialize")
        self.worker.start()
        self.settle()
        for model in self.models:
            self.train(model)
        self.server.start()
        self.scheduler.start()
        self.load.start()
        self.scheduled("materialize")

    def check_programs(self) -> None:
        """Nothing has ended by itself."""
        for program in (self.server, self.worker, self.scheduler):
            program.check()

    def restart_server(self) -> None:
        """End the server and start it again, with nobody asking meanwhile."""
        with self.load.paused():
            self.server.stop()
            self.server.start()

    def restart(self, program: Program) -> None:
        """``kill -9``, and start again."""
        program.kill()
        program.start()

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._clock.now_us()

    def advance(self, minutes: int) -> None:
        """Let time pass."""
        self._clock.set(self.now + minutes * 60 * SECOND)

    # -- verbs --------------------------------------------------------------------------------------------------------

    def verb(self, *words: str) -> Said:
        return run(*words, "--repo", self.repo, "--json")

    def done(self, *words: str) -> dict[str, Any]:
        """Run a verb that must succeed."""
        said = self.verb(*words)
        assert said.code == 0, f"`skewless {' '.join(words)}` ended with {said.code}: {said.stdout} {said.stderr}"
        return said.body

    def adopt(self, declared: Declared, models: Sequence[str]) -> None:
        """Change the definitions as a user does: edit, plan, apply, fill tables, train some models."""
        files.write(self.repo, declared)
        self.done("plan")
        self.done("apply")
        old, self.declared = self.declared, declared
        self.send(self.happenings.recent(self.chance.choice(self.sources), 4, self.now))
        if old.latest != declared.latest:
            self.done("materialize")
        for model in models:
            self.train(model)

    def train(self, model: str) -> None:
        """Train a version that must be promoted."""
        (body,) = self.done("train", model)["models"]
        assert body["promoted"], body
        self.trained(model, body["version"])

    def scheduled(self, job: str) -> None:
        """Ask the scheduler for a run, and wait until it is done."""
        before = {run["id"] for run in self._runs(job)}  # the list ends with so many of the newest
        self.done("runs", "start", job, "--cause", "the second week")

        def look() -> object:
            # One that was due meanwhile is refused, and stands behind it.
            new = [run for run in self._runs(job) if run["id"] not in before]
            return None if "done" in {run["state"] for run in new} else new

        self.until(look, f"the scheduler does not run {job}")

    def _runs(self, job: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.done("runs", "list", job)["runs"]
        assert "failed" not in {run["state"] for run in runs}, runs
        return runs

    def trained(self, model: str, version: str) -> None:
        """Note that a version was trained on the plan in force and is champion now."""
        self.judge.versions[model, version] = self.declared
        self.moved(model, version)

    def moved(self, model: str, version: str) -> None:
        self.champions[model].append(version)

    def before(self, model: str) -> str | None:
        """Return the champion that a rollback returns to: a move one step back undoes a step (docs/commands.md)."""
        path: list[str] = []
        for version in self.champions[model]:
            if path[-2:-1] == [version]:
                path.pop()
            else:
                path.append(version)
        return path[-2] if len(path) > 1 else None

    @property
    def sources(self) -> list[Source]:
        """The sources that a view reads that is declared, or that a champion or the champion before it needs."""
        needed: list[View] = [*self.declared.windows]
        for model, moves in self.champions.items():
            for declared in (self.judge.versions[model, version] for version in moves[-2:]):
                needed += map(declared.view, declared.service_of(model).views)
        names = {view.source.name for view in needed if isinstance(view, Window)}
        return [source for source in self.declared.sources if source.name in names]

    # -- doors --------------------------------------------------------------------------------------------------------

    def sending(self, items: Sequence[Item]) -> None:
        """From now on these items may count."""
        now = time.monotonic()
        for item in items:
            item.sent = min(item.sent, now)
        self._open += [item for item in items if item.settled == NEVER]

    def send(self, made: Made, door: str = "events") -> None:
        """Send events of one source through a door of the server, or through Feast."""
        if not made:
            return
        self.sending([item for _, item in made])
        source, raws = made[0][1].home, [raw for raw, _ in made]
        if door == "feast":
            self._push(source, raws)
            return
        columns = {name: [raw[name] for raw in raws] for name in raws[0]}
        path, body = {
            "events": (f"/events/{source}", {"events": raws}),
            "push": ("/push", {"push_source_name": source, "df": columns, "to": "online"}),
        }[door]
        status, said = self.server.ask("POST", path, body)
        assert status in (200, 202), (status, said)

    def _push(self, source: str, raws: Sequence[Raw]) -> None:
        import pandas as pd  # noqa: PLC0415 - Feast is slow to import, and not every run pushes

        from skewless_feast.feature_store import SkewlessFeatureStore  # noqa: PLC0415 - imports Feast

        store = SkewlessFeatureStore(repo_path=str(self.repo))
        time_column = next(item.time for item in self.declared.sources if item.name == source)
        frame = pd.DataFrame(list(raws))
        frame[time_column] = pd.to_datetime(frame[time_column], unit="us", utc=True)
        store.push(source, frame)
        provider: Any = store._get_provider()
        provider.online_store.close_connections()

    def history_file(self, source: Source, name: str, made: Made) -> Path:
        """Write a file of history, or write it anew; `skewless import` takes it in."""
        place = self.repo / "data" / source.name / f"{name}.parquet"
        raws = [raw for raw, _ in made]
        self.files[place] = (source, raws)
        write_events(place, source, raws)
        self.sending([item for _, item in made])
        return place

    def fact_file(self, name: str, rows: list[Item]) -> Path:
        place = self.repo / "data" / TABLE / f"{name}.parquet"
        self.fact_files[place] = rows
        self.sending(rows)
        write_facts(place, rows)
        return place

    def forget_file(self, place: Path, other: Path) -> None:
        """Give a file of history another name."""
        shutil.move(place, other)
        self.files[other] = self.files.pop(place)

    # -- what must be true --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until everything that was sent is in the log and in all states; from then on it must count."""
        waiting = list(self._open)
        self.until(self._is_settled, "the states do not catch up")
        now = time.monotonic()
        for item in waiting:
            item.settled = min(item.settled, now)
        self._open = [item for item in self._open if item.settled == NEVER]

    def _is_settled(self) -> object:
        """Return what is still missing, None if nothing is."""
        body = self.done("status")
        expected = {name: len(made) for name, made in self.happenings.events.items()}
        missing: dict[str, object] = {
            source["source"]: f"{source['log_rows']} rows of {expected[source['source']]}"
            for source in body["sources"]
            if source["log_rows"] < expected[source["source"]]
        }
        missing |= {view["view"]: view["lag"] for view in body["windows"] if view["lag"] != 0}
        missing |= {view["view"]: "rows" for view in body["views"] if not view["online_current"]}
        if not missing and any(item.home == TABLE for item in self._open):
            missing |= self._unpublished()
        return missing or None

    def _unpublished(self) -> dict[str, object]:
        views = self.done("materialize", "--dry-run")["views"]
        return {view["view"]: view for view in views if view["accepted"] or view["rejected"]}

    def wait_for_cron(self) -> None:
        """Let time pass until the scheduler has materialized; a tick that comes while a run is under way is refused."""

        def look() -> object:
            if missing := self._unpublished():
                self.advance(1)
            return missing or None

        self.until(look, "the scheduler does not materialize")

    def until(self, look: Callable[[], object], problem: str) -> None:
        """Wait until a look finds nothing that is missing."""
        deadline = time.monotonic() + _PATIENCE_S
        while (missing := look()) is not None:
            assert time.monotonic() < deadline, f"{problem}: {missing}"
            self.check_programs()
            time.sleep(_STEP_S)

    def judge_load(self) -> list[str]:
        """Return what was wrong with the predictions that were asked all the time."""
        wrong, self.load.failures = [f"a request failed: {text}" for text in self.load.failures], []
        return wrong + [text for read in self.load.taken() for text in self.judge.differences(read)]

    def judge_everyone(self) -> list[str]:
        """Ask for every user by every model, when all is at rest; every view must be served, bit for bit."""
        rows = [row(self._asking, user) for user in [*files.USERS, "nobody"]]
        connection = HTTPConnection(self.server.address, timeout=30)
        wrong: list[str] = []

        def look() -> object:
            wrong[:] = []
            for model in self.models:
                read = predict(connection, model, rows)
                if read.status == 200 and read.body["version"] != self.champions[model][-1]:
                    return f"{model} answers by {read.body['version']}, not by {self.champions[model][-1]}"
                wrong.extend(self.judge.differences(read, strict=True))
            served = [text for text in wrong if " is stale" in text or " is unavailable" in text]
            return served[0] if served else None

        try:
            self.until(look, "predictions are not served as they should be")
        finally:
            connection.close()
        return wrong
