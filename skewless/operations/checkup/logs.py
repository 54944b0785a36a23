"""The logs: that each file is there, and is to the last bit what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import StoreError
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good

if TYPE_CHECKING:
    from skewless.infra.log.inventory import Inventory

_MB = 1_000_000
_LATER = "nothing has to be done: they are noted with the next file that is written"


def check_logs(state: Path) -> list[CheckupFinding]:
    """Say of each kind of log whether all of its files are what was written; reads all of them."""
    from skewless.infra.log.inventory import inventory_folder

    roots = [state / name for name in ("log", "predictions", "outcomes")]
    return [_judge(root) for root in roots if root.exists() or inventory_folder(root).exists()]


def _judge(root: Path) -> CheckupFinding:
    name = f"files of {root.name}"
    try:
        found = [_compared(inventory) for inventory in _inventories(root)]
    except StoreError as error:
        return from_error(name, error)
    files, size, unknown = (sum(each) for each in zip(*found, strict=True)) if found else (0, 0, 0)
    said = f"{files:,} files, {size / _MB:,.1f} MB, as they were written"
    if unknown:
        return doubt(name, f"{said}; of {unknown:,} nobody noted what was written", _LATER)
    return good(name, said)


def _inventories(root: Path) -> list[Inventory]:
    from skewless.infra.log.inventory import Inventory, list_recorded_partitions

    folders = {str(path.parent.relative_to(root)) for path in root.rglob("*.parquet")}
    if folders == {"."}:
        return [Inventory(root)]
    noted = set(list_recorded_partitions(root)) - {"all"}
    return [Inventory(root, partition) for partition in sorted(folders | noted - {"."})] or [Inventory(root)]


def _compared(inventory: Inventory) -> tuple[int, int, int]:
    """Return how many files there are, their bytes, and of how many it is not known what was written."""
    notes, paths = inventory.entries(), sorted(inventory.folder.glob("*.parquet"))
    inventory.check_missing([path.name for path in inventory.folder.glob("*")])
    for path in paths:
        inventory.check(path)
        inventory.verify(path)
    unknown = sum(path.name not in notes or not notes[path.name].is_exact for path in paths)
    return len(paths), sum(path.stat().st_size for path in paths), unknown
