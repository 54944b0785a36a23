"""Which jobs a project has: by its settings, its models, and the verbs that there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.lifecycle import Triggers
from skewless.contract.settings import Settings
from skewless.contract.spec import ModelSpec, Split
from skewless.training.scheduling.job import Job, list_jobs

SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="p", event_time="e", known_time="k", label="l"),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=1)),
)


def table(spec: ModelSpec = SPEC, *, moves: bool = False, **settings: object) -> dict[str, Job]:
    chosen = Settings(**settings)
    return {job.name: job for job in list_jobs(chosen, [spec], lambda _: moves)}


def test_a_model_without_cron_or_triggers_is_not_retrained() -> None:
    of_data = ["materialize", "validate", "parity", "replay", "freshness", "housekeeping"]
    assert list(table()) == [*of_data, "drift m", "quality m", "rollout m"]


def test_a_cron_or_a_trigger_makes_a_model_retrained() -> None:
    assert table(replace(SPEC, retrain="0 4 * * *"))["retrain m"].schedule is not None
    on_cause = table(replace(SPEC, triggers=Triggers(drift=True)))
    assert on_cause["retrain m"].schedule is None
    assert on_cause["retrain m"].is_retried
    assert on_cause["triggers m"].words == ("triggers", "m", "--start")


def test_a_line_that_is_off_makes_no_job() -> None:
    assert {"parity", "quality m"} & set(table(parity_cron="off", quality_cron="off")) == set()


def test_a_rollout_is_looked_at_only_while_one_is_under_way() -> None:
    assert not table()["rollout m"].has_work()
    job = table(moves=True, rollout_seconds=2.5)["rollout m"]
    assert job.has_work()
    assert job.schedule is not None
    assert job.schedule.next(0) == 2_500_000


def test_the_limit_is_that_of_the_settings() -> None:
    assert {job.limit_s for job in table(job_seconds=9.0).values()} == {9.0}
