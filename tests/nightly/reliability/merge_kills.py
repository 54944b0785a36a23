"""Shipping, compaction and deletion in the prediction log, under the eyes of ``kills``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import prediction_spool
from tests.reliability.kills import Steps
from tests.unit.infra.predictions.merges import delete_objects, merge
from tests.worlds.addresses import ProjectAddresses

ACTIONS: Mapping[str, Callable[[ProjectState], object]] = {
    "ship": lambda state: prediction_spool(state).ship(),
    "merge": merge,
    "delete": delete_objects,
}


def order_of(folder: Path, addresses: ProjectAddresses, action: str) -> dict[str, Any]:
    """Return the order to do something to the project of a state folder."""
    return {"folder": str(folder), "addresses": asdict(addresses), "action": action}


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Do one action."""
    folder = Path(order["folder"])
    steps.watch(folder)
    ACTIONS[order["action"]](ProjectAddresses(**order["addresses"]).state(folder))
