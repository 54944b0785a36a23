"""Files of the logs that are gone or altered, at each verb that reads them."""

from __future__ import annotations

from tests.nightly.integration.errors.case import Arrange, Case, verb
from tests.nightly.integration.errors.scene import Scene

_PAID = "{repo}/data/payments.parquet"
_DATASET = ("dataset", "--entities", _PAID, "--service", "fraud", "--time", "paid_at", "--out", "{elsewhere}")
_ROWS, _PREDICTIONS = "log/batch/card_days-*", "predictions"


def _gone(folder: str) -> Arrange:
    """Return the loss of the only file: what is left looks like a log that holds nothing yet."""

    def arrange(scene: Scene) -> None:
        for path in scene.state.glob(f"{folder}/*.parquet"):
            path.unlink()

    return arrange


def _altered(folder: str) -> Arrange:
    def arrange(scene: Scene) -> None:
        for path in scene.state.glob(f"{folder}/*.parquet"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    return arrange


def _cases(*words: str, folder: str = _ROWS, added: tuple[str, ...] = ()) -> tuple[Case, ...]:
    faults = {"is missing": _gone, "is corrupt": _altered}
    return tuple(
        Case(
            name=f"{words[0]} of {folder}: a log file {problem}", ask=verb(*words), code=7, arrange=fault(folder),
            thing="log file", says=(problem, ".parquet"), fix="restore it from a backup", added=added,
        )
        for problem, fault in faults.items()
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    *_cases(*_DATASET, added=("elsewhere/_dataset.json",)),  # without parts; the next run continues
    *_cases("train", "fraud"),
    *_cases("parity"),
    *_cases("status"),
    *_cases("freshness"),
    *_cases("replay"),
    *_cases("replay", folder=_PREDICTIONS),
    *_cases("drift", "fraud", folder=_PREDICTIONS),
    *_cases("quality", "fraud", folder=_PREDICTIONS),
)
