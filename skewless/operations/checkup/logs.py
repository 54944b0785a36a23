"""The logs: no file is missing, and each file has the written bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import StoreError
from skewless.contract.render import count_text
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good

if TYPE_CHECKING:
    from skewless.infra.log.inventory import Inventory

_MB = 1_000_000
_LATER = "do nothing: the next written file records them"


def check_logs(state: ProjectState) -> list[CheckupFinding]:
    """Return a finding for each kind of log; reads all files."""
    from skewless.infra.log.inventory import inventory_folder

    roots = [state / name for name in ("log", "predictions", "outcomes")]
    return [_judge(root) for root in roots if root.exists() or inventory_folder(root).exists()]


def _judge(root: Path) -> CheckupFinding:
    name = f"files of {root.name}"
    try:
        counts = [_count_files(inventory) for inventory in _inventories(root)]
    except StoreError as error:
        return from_error(name, error)
    files, size, unknown = (sum(item) for item in zip(*counts, strict=True)) if counts else (0, 0, 0)
    detail = f"{count_text(files, 'file')}, {size / _MB:,.1f} MB, unchanged"
    if unknown:
        return doubt(name, f"{detail}; {count_text(unknown, 'file')} without a recorded checksum", _LATER)
    return good(name, detail)


def _inventories(root: Path) -> list[Inventory]:
    from skewless.infra.log.inventory import Inventory, list_recorded_partitions

    folders = {str(path.parent.relative_to(root)) for path in root.rglob("*.parquet")}
    if folders == {"."}:
        return [Inventory(root)]
    noted = set(list_recorded_partitions(root)) - {"all"}
    return [Inventory(root, partition) for partition in sorted(folders | noted - {"."})] or [Inventory(root)]


def _count_files(inventory: Inventory) -> tuple[int, int, int]:
    """Return the number of files, their bytes, and the number of files without a recorded checksum."""
    notes, paths = inventory.entries(), sorted(inventory.folder.glob("*.parquet"))
    inventory.check_missing([path.name for path in inventory.folder.glob("*")])
    for path in paths:
        inventory.check(path)
        inventory.verify(path)
    unknown = sum(path.name not in notes or not notes[path.name].is_exact for path in paths)
    return len(paths), sum(path.stat().st_size for path in paths), unknown
