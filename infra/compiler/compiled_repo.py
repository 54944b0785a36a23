"""A compiled repo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec

if TYPE_CHECKING:
    from skewless.infra.compiler.compile_inputs import CompileInputs


@dataclass(frozen=True, kw_only=True)
class CompiledRepo:
    """The declarations of a repo: the plan, the models, and the Feast objects to register.

    Args:
        inputs: files, variables and libraries that they depend on; None: these cannot be known.
        files: of the repo that were loaded or opened, relative to the repo.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    feast_objects: tuple[Any, ...]
    inputs: CompileInputs | None = None
    files: tuple[str, ...] = ()
