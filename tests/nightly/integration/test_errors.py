"""The table of errors of issue 2: each names thing, value and remedy, ends with its code, and changes no state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.nightly.integration.errors import (
    definitions,
    disk,
    files,
    gates,
    logs,
    packages,
    plans,
    redis_away,
    requests,
    sources,
    usage,
)
from tests.nightly.integration.errors.case import Case, ErrorReply
from tests.nightly.integration.errors.scene import Scene, Stage, StoredBytes, opened_stage

TABLE: tuple[Case, ...] = (
    *requests.CASES,
    *files.CASES,
    *definitions.CASES,
    *sources.CASES,
    *disk.CASES,
    *redis_away.CASES,
    *logs.CASES,
    *packages.CASES,
    *plans.CASES,
    *gates.CASES,
    *usage.CASES,
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened_stage(tmp_path_factory.mktemp("errors")) as stage:
        yield stage


@pytest.fixture
def scene(case: Case, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    if case.shared:
        yield stage.served(monkeypatch)
        return
    with ExitStack() as stack:
        yield Scene(repo=stage.copy(), place=tmp_path, stage=stage, patch=monkeypatch, stack=stack)
    # A case may bring other views up to date; the next one finds the rows as they were.
    if stage.store.rows() != stage.rows:
        stage.store.fill(stage.rows)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.soak if case.soak else ()) for case in TABLE]
)
def test_bad_input(case: Case, scene: Scene) -> None:
    case.arrange(scene)
    files, rows = scene.files(), scene.stage.store.rows()
    with case.during(scene):
        said = case.ask(scene)
    _check_said(case, said)
    case.after(scene, said)
    _check_files(case, files, scene.files())
    if not case.writes_rows:
        assert _without_watermarks(scene.stage.store.rows()) == _without_watermarks(rows)


def _without_watermarks(rows: StoredBytes) -> StoredBytes:
    """Keep the position of each marker: a view beside the refused one may be known to be complete for longer."""
    return {key: value.split()[0] if key.endswith(b":applied") and value else value for key, value in rows.items()}


def _check_said(case: Case, said: ErrorReply) -> None:
    assert said.code == case.code, said.text
    assert "Traceback" not in said.text
    assert case.thing in said.part("thing")
    assert case.fix in said.part("fix")
    for part in case.says:
        assert part in said.part("message")
    answered = case.code in {0, 200}
    assert bool(said.error) != answered or case.usage
    assert answered or said.part("fix")


def _check_files(case: Case, before: dict[str, str], after: dict[str, str]) -> None:
    kept = {path: digest for path, digest in before.items() if not _matches(path, case.changed)}
    assert {path: after.get(path) for path in kept} == kept
    new = [path for path in sorted(after.keys() - before.keys()) if after[path] != "/"]
    folders = {path for path in after.keys() - before.keys() if after[path] == "/"}
    assert all(any(path.startswith(f"{folder}/") for path in new) for folder in folders), folders
    for path in new:
        assert _matches(path, case.added), path
    for pattern in case.added:
        assert any(fnmatchcase(path, pattern) for path in new), (pattern, new)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def test_the_cases_have_names_of_their_own() -> None:
    assert [name for name, n in Counter(case.name for case in TABLE).items() if n > 1] == []
