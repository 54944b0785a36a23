"""The random changes: each is done to the world as a user does it, and says what it did."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.nightly.second_week.data import write_events
from tests.nightly.second_week.declared import Declared, Source
from tests.nightly.second_week.edits import Editor
from tests.nightly.second_week.living import LivingProject
from tests.nightly.second_week.project import CLICKS

SECOND = 1_000_000
_DEFINITIONS = (
    "feature_added",
    "sequence_added",
    "recency_added",
    "feature_changed",
    "window_changed",
    "feature_renamed",
    "feature_dropped",
    "fact_added",
    "ttl_changed",
    "view_added",
    "latest_added",
    "view_renamed",
    "view_dropped",
    "view_changed",
    "transform_added",
    "transform_changed",
    "transform_dropped",
    "label_changed",
)
_DATA = (
    "late_file",
    "older_history",
    "overlapping_file",
    "moved_file",
    "grown_file",
    "corrected_events",
    "corrected_facts",
    "late_facts",
    "sent_twice",
)
_LIFE = ("retrained", "retrained_by_the_scheduler", "promoted", "rolled_back", "worker_killed", "scheduler_killed")
KINDS = (*_DEFINITIONS, *_DATA, *_LIFE)


def kinds(seed: int, allowed: tuple[str, ...] = KINDS) -> Iterator[str]:
    """Return kinds of changes without an end: each comes once before any comes again."""
    chance = random.Random(seed)
    while True:
        yield from chance.sample(allowed, len(allowed))


class Changes:
    """Does changes to a world."""

    def __init__(self, world: LivingProject) -> None:
        self._world, self._chance = world, world.chance
        self._editor = Editor(world.chance)

    def do(self, kind: str) -> str:
        """Do a change of a kind; return what was done."""
        if kind in _DEFINITIONS:
            edit: Callable[[Declared], tuple[Declared, str]] = getattr(self._editor, kind)
            declared, said = edit(self._world.declared)
            models = self._chance.choice([self._world.models[:1], self._world.models[1:], self._world.models, ()])
            self._world.adopt(declared, models)
            return f"{said}; trained: {', '.join(models) or 'none'}"
        done: Callable[[], str] = getattr(self, kind)
        return done()

    def _name(self, stem: str) -> str:
        return self._editor.name(stem)

    def _source(self) -> Source:
        return self._chance.choice(self._world.sources)

    def _file(self) -> Path:
        """Choose a file of history whose source is still read."""
        files, sources = self._world.files, self._world.sources
        return self._chance.choice([place for place in sorted(files) if files[place][0] in sources])

    def _model(self) -> str:
        return self._chance.choice(self._world.models)

    # -- data ---------------------------------------------------------------------------------------------------------

    def late_file(self) -> str:
        return self._new_file("late", 2)

    def older_history(self) -> str:
        return self._new_file("older", 90)

    def _new_file(self, stem: str, days: int) -> str:
        world, source = self._world, self._source()
        made = world.happenings.old(source, self._chance.choice([5, 40]), world.now, days)
        place = world.history_file(source, self._name(stem), made)
        world.done("import")
        return f"imported {place.name} of {source.name}, {len(made)} events"

    def overlapping_file(self) -> str:
        """Half of the file came by the stream or by another file before."""
        world = self._world
        known = [raw for raw, _ in self._chance.sample(world.happenings.events["clicks"], 12)]
        made = world.happenings.old(CLICKS, 6, world.now)
        place = world.history_file(CLICKS, self._name("overlap"), made)
        raws = [*known, *(raw for raw, _ in made)]
        self._chance.shuffle(raws)
        world.files[place] = (CLICKS, raws)
        write_events(place, CLICKS, raws)
        world.done("import")
        return f"imported {place.name}: {len(known)} known events, {len(made)} new ones"

    def moved_file(self) -> str:
        """Touched, renamed or copied: nothing counts again."""
        world, how = self._world, self._chance.choice(["touched", "renamed", "copied"])
        place = self._file()
        other = place.with_name(f"{self._name('moved')}.parquet")
        if how == "touched":
            os.utime(place)
        elif how == "renamed":
            world.forget_file(place, other)
        else:
            shutil.copy(place, other)
            world.files[other] = world.files[place]
        world.done("import")
        return f"{how} {place.parent.name}/{place.name}"

    def grown_file(self) -> str:
        """A file of history is written anew with more events at its end."""
        world = self._world
        place = self._file()
        source, raws = world.files[place]
        made = world.happenings.recent(source, 7, world.now)
        world.sending([item for _, item in made])
        world.files[place] = (source, [*raws, *(raw for raw, _ in made)])
        write_events(place, source, world.files[place][1])
        world.done("import")
        return f"{place.parent.name}/{place.name} has grown by {len(made)} events"

    def corrected_events(self) -> str:
        """A file with other values for ids that are known: an event counts once, as it came first."""
        world = self._world
        chosen = self._chance.sample(world.happenings.events["clicks"], 9)
        raws = [{**raw, "amount": 1_000.0, "qty": 7} for raw, _ in chosen]
        place = world.repo / "data/clicks" / f"{self._name('corrected')}.parquet"
        world.files[place] = (CLICKS, raws)
        write_events(place, CLICKS, raws)
        world.done("import")
        return f"imported {place.name}: {len(raws)} known ids with other values"

    def corrected_facts(self) -> str:
        """The table is written anew; corrected rows have the same event time and were written later."""
        world = self._world
        place = self._chance.choice(sorted(world.fact_files))
        rows = list(world.fact_files[place])
        for at in self._chance.sample(range(len(rows)), min(5, len(rows))):
            rows[at] = world.happenings.fact(str(rows[at].values["user"]), rows[at].ts, world.now)
        world.fact_file(place.stem, rows)
        return f"{place.name} corrected{self._filled()}"

    def late_facts(self) -> str:
        """A new file of the table, with rows of the last days."""
        world = self._world
        place = world.fact_file(self._name("facts"), world.happenings.facts(8, world.now))
        return f"{place.name} written{self._filled()}"

    def _filled(self) -> str:
        """Fill by hand, or leave it to the scheduler."""
        if self._chance.random() < 0.5:
            self._world.done("materialize")
            return ", materialized by hand"
        self._world.wait_for_cron()
        return ", materialized by the scheduler"

    def sent_twice(self) -> str:
        """The same events through several doors, in several requests each."""
        world, source = self._world, self._source()
        made = world.happenings.recent(source, 8, world.now)
        doors = self._chance.sample(["events", "events", "events", "push", "feast"], 4)
        for i, door in enumerate(doors):
            self._chance.shuffle(made)
            if i and not source.id_column:
                made = [(raw, world.happenings.again(source, raw)) for raw, _ in made]
            for part in (made[:3], made[3:]):
                world.send(part, door)
        if source.id_column:
            place = world.history_file(source, self._name("twice"), made)
            world.done("import")
            doors.append(place.name)
        return f"{len(made)} events of {source.name} sent by {', '.join(doors)}"

    # -- life ---------------------------------------------------------------------------------------------------------

    def retrained(self) -> str:
        model = self._model()
        self._world.train(model)
        return f"trained {model}"

    def retrained_by_the_scheduler(self) -> str:
        world, model = self._world, self._model()
        world.scheduled(f"retrain {model}")
        newest = max(version["version"] for version in world.done("versions", model)["versions"])
        world.trained(model, newest)
        return f"the scheduler trained {model}"

    def promoted(self) -> str:
        """Any version; what cannot be served, or is refused by its gate, changes nothing."""
        world, model = self._world, self._model()
        version = self._chance.choice(sorted(v for name, v in world.judge.versions if name == model))
        said = world.verb("promote", model, version)
        assert said.code in (0, 5), said
        kept = version in world.champions[model][-2:]
        assert said.code == 0 or not kept, f"{model} {version} was champion just now: {said}"
        if said.code == 0 and version != world.champions[model][-1]:
            world.moved(model, version)
        return f"promote {model} {version}: exit code {said.code}"

    def rolled_back(self) -> str:
        """To the champion before, whatever happened to its views meanwhile."""
        world, model = self._world, self._model()
        champion, before = world.champions[model][-1], world.before(model)
        if before is None:
            return self.retrained()
        world.done("rollback", model)
        world.moved(model, before)
        return f"rolled back {model} from {champion} to {before}"

    def worker_killed(self) -> str:
        """Events come before, meanwhile and afterwards."""
        world, source = self._world, self._source()
        world.send(world.happenings.recent(source, 6, world.now))
        world.worker.kill()
        world.send(world.happenings.recent(source, 6, world.now))
        world.worker.start()
        world.send(world.happenings.recent(source, 6, world.now))
        return "the stream worker was killed and started again"

    def scheduler_killed(self) -> str:
        self._world.restart(self._world.scheduler)
        self._world.scheduled("materialize")
        return "the scheduler was killed and started again"
