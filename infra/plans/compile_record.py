"""The record next to the applied plan: the inputs that it was compiled from, which tell whether to compile again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.columns import digest
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.compiler.compile_inputs import CompiledRepo, CompileInputs
from skewless.infra.plans.applied_plan import AppliedPlan, read_registry_state
from skewless.infra.storage.durable import replace_durable
from skewless.infra.storage.project_state import ProjectState
from skewless.version import __version__

FILE = "compiled.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CompileRecord:
    """The inputs of the applied plan.

    Args:
        compiled: identity of the plan, the models and the decision streams that were compiled.
        tables: identity of the column types of each table behind a source; empty: the table was missing.
        version: of skewless.
    """

    inputs: CompileInputs
    compiled: str
    tables: Mapping[str, str]
    version: str = __version__

    def difference(self, repo: Path, state: ProjectState, applied: AppliedPlan) -> str | None:
        """Return the first thing that differs from the record, for logs; None: compiling gives the applied plan.

        The planner compares the tables, which it can read.
        """
        if self.version != __version__ or self.compiled != _identity(applied):
            return "plan"
        if read_registry_state(repo, state, applied) != "current":
            return "registry"
        return self.inputs.difference(repo.absolute())


def save_record(state: ProjectState, compiled: CompiledRepo, tables: Mapping[str, str]) -> None:
    """Write the record of a plan that was just applied; remove it if the inputs cannot be known."""
    path = state / FILE
    # Models or a plan that JSON changes could never be recognized as unchanged.
    models = tuple(ModelSpec.from_dict(spec.as_dict()) for spec in compiled.models)
    decisions = tuple(DecisionStream.from_dict(item.as_dict()) for item in compiled.decisions)
    same = (FeaturePlan.from_dict(compiled.plan.as_dict()), models, decisions)
    if compiled.inputs is None or same != (compiled.plan, compiled.models, compiled.decisions):
        with suppress(OSError):  # one that stays does not have the inputs of this plan
            path.unlink(missing_ok=True)
        return
    body = {
        "format": _FORMAT,
        "version": __version__,
        "compiled": _identity(compiled),
        "tables": dict(tables),
        "inputs": vars(compiled.inputs),  # thousands of plain values: not copied
    }
    with suppress(StoreError, OSError):  # the next plan compiles again
        replace_durable(path, json.dumps(body).encode("utf-8", "surrogateescape"))


def read_record(state: ProjectState) -> CompileRecord | None:
    """Return the record; None: there is none, or it is corrupt."""
    try:
        body: dict[str, Any] = json.loads((state / FILE).read_bytes())
        if body["format"] != _FORMAT:
            return None
        inputs = CompileInputs.from_dict(body["inputs"])
        return CompileRecord(inputs=inputs, compiled=body["compiled"], tables=body["tables"], version=body["version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _identity(declared: CompiledRepo | AppliedPlan) -> str:
    parts = [[item.as_dict() for item in items] for items in (declared.models, declared.decisions)]
    return digest([declared.plan.as_dict(), *parts])
