"""The plan that is reused without compiling is always the plan that compiling gives."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import SkewlessError
from skewless.infra.compiler import compile_inputs, input_recorder
from skewless.infra.compiler.compile import compile_repo
from skewless.infra.compiler.compile_inputs import CompiledRepo
from skewless.infra.offline.engine import connect
from skewless.infra.plans.compile_record import FILE, read_record
from skewless.infra.plans.planning import Planner
from skewless.infra.storage.documents import Records
from skewless.infra.storage.project_state import ProjectState
from tests.integration.infra.test_window_compiler import write_history
from tests.worlds.compile_changes import CHANGES, Surroundings, write_project
from tests.worlds.edits import edit
from tests.worlds.windowed_types import COLUMNS, write_repo

NOW = 1_750_000_000_000_000
TICK_S = 0.05  # files that are younger are not trusted


@dataclass(frozen=True)
class AppliedOnce:
    """Where each test finds the project, and two copies: as it was written, and as an apply left it."""

    place: Path
    written: Path
    applied: Path


@pytest.fixture(scope="module")
def applied_once(tmp_path_factory: pytest.TempPathFactory) -> AppliedOnce:
    folder = tmp_path_factory.mktemp("applied")
    once = AppliedOnce(folder / "place", folder / "written", folder / "applied")
    write_project(once.place, NOW)
    shutil.copytree(once.place, once.written)
    with pytest.MonkeyPatch.context() as patch, open_planner(surround(once.place, patch), folder / "spill") as planner:
        patch.setattr(input_recorder, "started_ns", time.time_ns)  # as for each test: see `_trust_modules`
        apply(planner)
        planner.state.database.close()  # its file is copied
    shutil.copytree(once.place, once.applied)
    return once


@pytest.fixture
def surroundings(applied_once: AppliedOnce, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """A project that was never applied."""
    return restore(applied_once, applied_once.written, monkeypatch)


@pytest.fixture
def applied_surroundings(applied_once: AppliedOnce, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """A project that was applied, with its record; always in one place, as the record names its inputs by paths."""
    return restore(applied_once, applied_once.applied, monkeypatch)


@pytest.fixture
def planner(surroundings: Surroundings, tmp_path: Path) -> Iterator[Planner]:
    with open_planner(surroundings, tmp_path / "spill") as planner:
        yield planner


@pytest.fixture
def applied_planner(applied_surroundings: Surroundings, tmp_path: Path) -> Iterator[Planner]:
    with open_planner(applied_surroundings, tmp_path / "spill") as planner:
        yield planner


def restore(once: AppliedOnce, copy: Path, patch: pytest.MonkeyPatch) -> Surroundings:
    shutil.rmtree(once.place)
    shutil.copytree(copy, once.place)
    return surround(once.place, patch)


def surround(place: Path, patch: pytest.MonkeyPatch) -> Surroundings:
    patch.syspath_prepend(str(place / "outside"))
    patch.setenv("PROJECT_DAYS", "30")
    return Surroundings(place / "repo", place / "outside", patch)


@contextmanager
def open_planner(surroundings: Surroundings, spill: Path) -> Iterator[Planner]:
    with connect(spill, threads=1) as connection:
        yield Planner(
            repo=surroundings.repo, state=ProjectState(surroundings.repo / ".skewless"), connect=lambda: connection
        )
    _forget()


def _forget() -> None:
    for name in ("company", "parts", "parts.days"):
        sys.modules.pop(name, None)


def apply(planner: Planner) -> None:
    """Apply as a new process does."""
    _forget()
    time.sleep(TICK_S)
    planner.apply(NOW)


def compiled_anew(planner: Planner) -> CompiledRepo | SkewlessError:
    _forget()
    try:
        return planner._compile()[0]
    except SkewlessError as error:
        return error


def reused(planner: Planner) -> bool:
    """Return whether the plan is reused, having compared it with a compilation."""
    plan = planner._unchanged()
    if plan is None:
        return False
    full = compiled_anew(planner)
    assert isinstance(full, CompiledRepo), full
    assert (plan.plan, plan.models) == (full.plan, full.models)
    return True


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_is_reused_only_if_no_input_changed(
    change: str, applied_surroundings: Surroundings, applied_planner: Planner
) -> None:
    assert applied_planner._unchanged() is not None
    make, may_reuse = CHANGES[change]
    make(applied_surroundings)
    assert reused(applied_planner) is may_reuse


@pytest.mark.parametrize(
    ("seed", "rounds"), [(0, 5), *(pytest.param(seed, 10, marks=pytest.mark.soak) for seed in range(3))]
)
def test_whatever_happens_a_reused_plan_is_the_compiled_one(
    seed: int, rounds: int, surroundings: Surroundings, planner: Planner
) -> None:
    rng, count = random.Random(seed), 0
    shutil.copytree(surroundings.repo, surroundings.outside / "first")
    for _ in range(rounds):
        make, _ = CHANGES[rng.choice(list(CHANGES))]
        with suppress(OSError, AssertionError, KeyError):  # the change was made before
            make(surroundings)
        count += reused(planner)
        if rng.random() < 0.7:
            try:
                apply(planner)
            except SkewlessError:
                shutil.copytree(surroundings.outside / "first", surroundings.repo, dirs_exist_ok=True)
                continue
            count += reused(planner)
    assert count


def test_an_apply_without_a_change_writes_nothing(planner: Planner) -> None:
    apply(planner)
    before = {path: path.stat().st_mtime_ns for path in planner.state.folder.rglob("*") if path.is_file()}
    report = planner.apply(NOW + 1)
    assert (report.applied, report.changes) == (True, [])
    assert {path: path.stat().st_mtime_ns for path in planner.state.folder.rglob("*") if path.is_file()} == before


def test_an_apply_takes_note_of_files_that_are_not_loaded(
    applied_surroundings: Surroundings, applied_planner: Planner
) -> None:
    surroundings, planner = applied_surroundings, applied_planner
    (surroundings.repo / "expectations.py").write_text("SUITES = {}\n")
    assert planner.plan().notes
    apply(planner)
    assert not planner.plan().notes


def test_a_plan_that_is_not_the_recorded_one_is_compiled(
    applied_surroundings: Surroundings, applied_planner: Planner
) -> None:
    surroundings, planner = applied_surroundings, applied_planner
    records = Records(planner.state.database, "plan")
    before = records.latest("applied")
    assert before is not None
    CHANGES["models"][0](surroundings)
    apply(planner)
    records.add("applied", before[1])
    assert not reused(planner)


def test_a_corrupt_record_counts_as_none(applied_planner: Planner) -> None:
    state = applied_planner.state
    assert read_record(state) is not None
    for damage in (b"", b"{}", b'{"format": 1}', b"[]", b'{"format": 1, "inputs": {}}'):
        (state / FILE).write_bytes(damage)
        assert read_record(state) is None
    assert applied_planner.plan().changes == []


@pytest.mark.parametrize(
    "line",
    [
        "import pandas",
        "import time",
        "from datetime import datetime\nSTARTED = datetime.now()",
        "HERE = Path('data').exists()",
        "NOTE = Path(__file__).with_name('note.txt').write_text('x')",
        "try:\n    import missing_module\nexcept ImportError:\n    pass",
    ],
)
def test_the_inputs_of_some_definitions_cannot_be_known(line: str, surroundings: Surroundings) -> None:
    assert compile_repo(with_line(surroundings, line)).inputs is None
    _forget()


def with_line(surroundings: Surroundings, line: str) -> Path:
    """Return the repo, whose definitions have one line more."""
    with (surroundings.repo / "definitions.py").open("a") as file:
        file.write(f"\n{line}\n")
    time.sleep(TICK_S)
    return surroundings.repo


def test_definitions_whose_inputs_cannot_be_known_are_compiled_each_time(
    surroundings: Surroundings, planner: Planner
) -> None:
    with_line(surroundings, "import time")
    apply(planner)
    assert read_record(planner.state) is None
    assert planner.plan().changes == []


def test_a_file_that_changes_while_it_is_compiled_is_compiled_again(
    surroundings: Surroundings, planner: Planner
) -> None:
    with (surroundings.repo / "models.py").open("a") as file:
        file.write("\nfrom pathlib import Path\n\nTEXT = Path(__file__).with_name('limits.json').read_text()\n")
    apply(planner)
    assert read_record(planner.state) is not None
    _forget()
    (surroundings.repo / "limits.json").write_text('{"days": 8}')
    # The file system's clock ticks so seldom that the edit may have been made during the compilation.
    surroundings.patch.setattr(input_recorder, "_TICK_NS", 3_600_000_000_000)
    planner.apply(NOW)
    assert read_record(planner.state) is None


def test_libraries_and_packages_are_inputs(
    applied_surroundings: Surroundings, tmp_path: Path, applied_planner: Planner
) -> None:
    surroundings = applied_surroundings
    record = read_record(applied_planner.state)
    assert record is not None
    path, stamp = next(iter(record.inputs.libraries.items()))
    assert compile_inputs.read_stamp(path) == stamp
    surroundings.patch.setattr(compile_inputs, "read_stamp", lambda name: None if name == path else stamp)
    assert record.inputs.difference(surroundings.repo) == path
    surroundings.patch.undo()
    site = tmp_path / "site-packages"
    (site / "more-1.0.dist-info").mkdir(parents=True)
    surroundings.patch.setenv("PROJECT_DAYS", "30")
    surroundings.patch.syspath_prepend(str(site))
    assert record.inputs.difference(surroundings.repo) == "installed packages"


def test_a_library_with_its_old_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "library.py"
    path.write_text("x = 1\n")
    before, stat = compile_inputs.read_stamp(str(path)), path.stat()
    time.sleep(TICK_S)
    path.write_text("x = 2\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert compile_inputs.read_stamp(str(path)) != before


def test_the_types_of_a_history_that_declares_the_columns_are_inputs(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "windowed")
    edit(repo, f'"skewless.columns": {COLUMNS}', "")
    write_history(repo)
    time.sleep(TICK_S)
    with connect(tmp_path / "spill", threads=1) as connection:
        planner = Planner(repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: connection)
        planner.apply(NOW)
        assert reused(planner)
        pq.write_table(
            pa.table({**pq.read_table(repo / "data" / "landings.parquet").to_pydict(), "y": [1]}),
            repo / "data" / "landings.parquet",
        )
        assert not reused(planner)


def test_compiling_a_repo_anew_gives_the_recorded_inputs(surroundings: Surroundings, planner: Planner) -> None:
    apply(planner)
    record = read_record(planner.state)
    _forget()
    inputs = compile_repo(surroundings.repo).inputs
    assert record is not None
    assert inputs is not None
    assert inputs.files == record.inputs.files
    assert {Path(path).name for path in inputs.files} >= {"company.py", "days.py", "limits.json", "definitions.py"}
    assert inputs.variables == ("PROJECT_DAYS",)
