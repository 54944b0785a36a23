"""The jobs of a project: made from its settings and its models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from skewless.contract.settings import Settings
from skewless.contract.spec import ModelSpec
from skewless.training.scheduling.job import Job
from skewless.training.scheduling.schedule import Every, Schedule, schedule_of

# What was proven is not proven every night, and what passed is not judged every hour.
_OPTIONS = {"replay": ("--new",), "validate": ("--record",)}


def jobs(settings: Settings, models: Collection[ModelSpec], in_rollout: Callable[[str], bool]) -> list[Job]:
    """Return what there is to do, in the order in which one round does it.

    Args:
        in_rollout: whether a model's traffic is on its way to another version.

    Raises:
        DefinitionError: a cron line cannot be read.
    """
    return [*_of_data(settings), *(job for spec in models for job in _of_model(settings, spec, in_rollout))]


def _of_data(settings: Settings) -> Iterator[Job]:
    limit_s = settings.job_seconds
    for verb, line in (
        ("materialize", settings.materialize_cron),
        ("validate", settings.validate_cron),
        ("parity", settings.parity_cron),
        ("replay", settings.replay_cron),
        ("freshness", settings.freshness_cron),
        ("housekeeping", settings.housekeeping_cron),
    ):
        schedule = schedule_of(verb, line)
        if schedule is not None:
            words = (verb, *_OPTIONS.get(verb, ()))
            yield Job(name=verb, words=words, schedule=schedule, lane="data", limit_s=limit_s)


def _of_model(settings: Settings, spec: ModelSpec, in_rollout: Callable[[str], bool]) -> Iterator[Job]:
    def job(kind: str, words: tuple[str, ...], schedule: Schedule | None) -> Job:
        return Job(name=f"{kind} {spec.name}", words=words, schedule=schedule, lane="models", limit_s=limit_s)

    limit_s = settings.job_seconds
    for kind, line in (("drift", settings.drift_cron), ("quality", settings.quality_cron)):
        schedule = schedule_of(f"{kind} {spec.name}", line)
        if schedule is not None:
            yield job(kind, (kind, spec.name), schedule)
    if has_causes(spec):
        yield job("triggers", ("triggers", spec.name, "--start"), schedule_of("triggers", settings.triggers_cron))
    if spec.retrain or has_causes(spec):
        yield _retraining(spec, limit_s)
    yield Job(
        name=f"rollout {spec.name}",
        words=("rollout", spec.name, "--step"),
        schedule=Every(round(settings.rollout_seconds * 1e6)),
        lane="traffic",
        limit_s=limit_s,
        is_wanted=lambda: in_rollout(spec.name),
    )


def has_causes(spec: ModelSpec) -> bool:
    """Say whether anything but its cron line may retrain a model."""
    triggers = spec.triggers
    return triggers.drift or any(item is not None for item in (triggers.quality, triggers.labels, triggers.age))


def _retraining(spec: ModelSpec, limit_s: float) -> Job:
    name = f"retrain {spec.name}"
    schedule = schedule_of(name, spec.retrain) if spec.retrain else None
    return Job(name=name, words=("train", spec.name), schedule=schedule, lane="models", limit_s=limit_s, again=True)
