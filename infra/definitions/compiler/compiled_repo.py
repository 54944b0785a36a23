"""The declarations of a repo, compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skewless.contract.decisions import DecisionStream
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class CompiledRepo:
    """The declarations of a repo: the plan, the models, and the Feast objects to register.

    Args:
        files: modules of the repo that were loaded, relative to the repo; sorted.
        decisions: the decision streams, with compiled conditions.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    feast_objects: tuple[Any, ...]
    files: tuple[str, ...] = ()
    decisions: tuple[DecisionStream, ...] = ()
