"""One project, read and filled by skewless and by Feast: the same rows under the same keys."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
import redis
import yaml
from click.testing import CliRunner
from feast import FeatureStore
from feast.cli.cli import cli

from skewless.contract.clock import SystemClock, from_us
from skewless.infra.reads.engines.processes import ProcessExecutor
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.project import Project
from skewless_feast.stored_views import build_stored_view
from tests.docs.pages import blocks, page, section
from tests.worlds.feast_repo import tear_down
from tests.worlds.ledger_runs import read_runs
from tests.worlds.payments_data import TEMPLATE, write_sample

CARD = 9_007_199_254_740_993


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """The template with its sample and the three lines of the page, applied."""
    repo = tmp_path / "repo"
    shutil.copytree(TEMPLATE, repo, ignore=shutil.ignore_patterns("__pycache__"))
    write_sample(repo / "data", SystemClock().now_us())
    lines = yaml.safe_load(blocks(section(page("feast.md"), "Three lines"), "yaml")[0])
    written = yaml.safe_load((repo / "feature_store.yaml").read_text())
    (repo / "feature_store.yaml").write_text(yaml.safe_dump({**written, **lines}))
    with Project(repo) as opened:
        opened.apply()
        yield opened
        opened.private.stop()


@pytest.fixture
def feature_store(project: Project) -> Iterator[FeatureStore]:
    """The same project, as Feast opens it."""
    opened = FeatureStore(repo_path=str(project.repo))
    yield opened
    tear_down(opened)


def cards(feature_store: FeatureStore) -> list[int | None]:
    """Return a feature of three cards, the last of which nobody has."""
    entities = [{"card_id": card} for card in (CARD, CARD + 1, 1)]
    values: list[int | None] = feature_store.get_online_features(["card_days:payments_7d"], entities).to_dict()[
        "payments_7d"
    ]
    return values


def test_a_view_is_the_same_to_both(project: Project, feature_store: FeatureStore) -> None:
    entities = {entity.name: entity.join_key for entity in feature_store.list_entities()}
    forms = [
        build_stored_view(view, feature_store.config, lambda: entities) for view in feature_store.list_feature_views()
    ]
    plan = {view.name: view for view in project.applied.plan.views}
    assert {form.view.name: form.view for form in forms} == plan
    assert {form.view.hash for form in forms} == {view.hash for view in plan.values()}
    assert all(form.exact for form in forms)


def test_feast_reads_what_skewless_materialised(
    project: Project, feature_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cards(feature_store) == [None] * 3
    project.materialize(check=False)
    found = cards(feature_store)
    assert None not in found[:2]
    assert found[2] is None
    monkeypatch.chdir(project.repo)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(blocks(section(page("feast.md"), "The same data with skewless"), "python")[0], {})  # noqa: S102 - the page's own
    assert f"'payments_7d': [{found[0]}]" in said.getvalue()


def test_skewless_finds_nothing_to_do_after_feast(project: Project, feature_store: FeatureStore) -> None:
    feature_store.materialize_incremental(from_us(SystemClock().now_us()))
    assert None not in cards(feature_store)[:2]
    project.apply()  # Feast notes in its registry how far it has materialised
    reports = project.materialize(check=False)
    assert [(report.accepted, report.applied) for report in reports] == [(0, 0)] * 2
    assert all(run.ended_us for run in read_runs(project.state.database))


def rows_of(project: Project) -> dict[bytes, bytes]:
    """Return the rows of all views, as bytes; without markers, which have the time of the run."""
    with redis.Redis.from_url(project.redis_url) as client:
        names = [name for name in client.keys("*") if b":applied" not in name]
        return {name: client.get(name) for name in names}


def test_feast_materialises_on_the_engine(
    project: Project, feature_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_ENGINE_ROWS", "0")
    monkeypatch.setenv("SKEWLESS_ENGINE_WORKERS", "2")
    kinds: list[str] = []
    opened: list[ProcessExecutor] = []
    run = ProcessExecutor.run

    def spy(self: ProcessExecutor, tasks: Sequence[Task]) -> Generator[TaskResult]:
        kinds.extend(task.kind for task in tasks)
        opened.append(self)
        yield from run(self, tasks)

    monkeypatch.setattr(ProcessExecutor, "run", spy)
    until = from_us(SystemClock().now_us()).isoformat()
    done = CliRunner().invoke(cli, ["--chdir", str(project.repo), "materialize-incremental", until])
    assert done.exit_code == 0, done.output
    assert kinds == ["materialize"] * 4  # two tasks of each of two views
    assert [executor.pids() for executor in opened] == [[]] * 2
    assert list(project.state.storage.list_objects(FOLDER)) == []
    by_feast = rows_of(project)
    assert len(by_feast) == 340
    assert None not in cards(feature_store)[:2]
    with redis.Redis.from_url(project.redis_url) as client:
        client.flushall()
    project.apply()
    assert [report.applied for report in project.materialize(check=False)] == [300, 40]
    assert kinds == ["materialize"] * 4  # by this process alone, whose settings are older
    assert rows_of(project) == by_feast
