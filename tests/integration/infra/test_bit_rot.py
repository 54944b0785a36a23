"""One bit of one log file rots, with its size and time unchanged: no reader gives another value, and each names it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.platform.storage import project_state
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.project import Project
from tests.worlds.trained import MODEL, Sandbox, ask, opened_copy

FOLDERS = ("log", "predictions", "outcomes")
READERS: dict[str, Callable[[Project], object]] = {
    "training set": lambda project: repr(project.training_set(MODEL).table().to_pydict()),  # NaN is equal
    "replay": lambda project: project.replay().as_dict() | {"lines": ()},
    "parity": lambda project: project.parity().as_dict(),
    "quality": lambda project: project.quality(MODEL).as_dict() | {"since": None, "until": None},  # until now
    "predictions": lambda project: [str(row) for row in project.predictions(limit=100).rows],
}


@pytest.fixture
def logged(trained: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A project whose log has rows of views, predictions and outcomes."""
    with opened_copy(trained, tmp_path / "p") as place:
        ids = [id_ for _ in range(3) for id_ in place.predict(ask(20)).ids]
        outcomes = [
            Outcome(prediction_id=id_, label=float(i % 2), known_at=place.now_us()) for i, id_ in enumerate(ids)
        ]
        OutcomeWriter(outcome_spool(place.project.state)).append(outcomes, received_at=place.now_us(), source="test")
        yield place


def read_as_new_process(place: Sandbox, patch: pytest.MonkeyPatch, reader: str) -> object:
    """Return what a reader gives that has compared no file yet."""
    patch.setattr(project_state, "_storages", {})
    with Project(place.repo, redis_url=place.project.redis_url) as project:
        return READERS[reader](project)


def read_or_error(place: Sandbox, patch: pytest.MonkeyPatch, reader: str) -> tuple[SkewlessError | None, object]:
    try:
        return None, read_as_new_process(place, patch, reader)
    except SkewlessError as error:
        return error, None


def flip(path: Path, bit: int) -> None:
    """Flip a bit of a file that keeps its times."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_no_reader_gives_another_value(logged: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)
    expected = {name: read_as_new_process(logged, monkeypatch, name) for name in READERS}
    files = [path for folder in FOLDERS for path in sorted((logged.state / folder).rglob("*.parquet"))]
    found = dict.fromkeys(READERS, 0)
    for path in files:
        bit = draw.randrange(8 * path.stat().st_size)
        flip(path, bit)
        for name in READERS:
            error, value = read_or_error(logged, monkeypatch, name)
            if error is None:
                assert value == expected[name], (name, path)
            else:
                assert (type(error).exit_code, path.name in str(error)) == (StoreError.exit_code, True), error
                found[name] += 1
        flip(path, bit)
    assert all(read_as_new_process(logged, monkeypatch, name) == expected[name] for name in READERS)
    assert min(found.values()) > 0, found
