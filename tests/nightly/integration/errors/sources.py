"""Sources that are broken, gone, or of another shape, at each verb that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tests.nightly.integration.errors.case import LEDGER, ROUND, Arrange, Case, both, verb, written
from tests.nightly.integration.errors.definitions import rewritten
from tests.nightly.integration.errors.files import truncated
from tests.nightly.integration.errors.scene import Scene
from tests.worlds.command_line import run
from tests.worlds.edits import edit

_SHOPS, _LABELS = "data/shop_risk.parquet", "data/payments.parquet"
_CSV = "data/shop_risk.csv"


def _pages_lost(file: str) -> Arrange:
    """Return the loss of a file's data, its footer kept."""

    def arrange(scene: Scene) -> None:
        path = scene.repo / file
        data = path.read_bytes()
        kept = len(data) - int.from_bytes(data[-8:-4], "little") - 8
        path.write_bytes(data[:4] + b"\xa5" * (kept - 4) + data[kept:])

    return arrange


def _gone(file: str) -> Arrange:
    return lambda scene: (scene.repo / file).unlink()


def _as_csv(scene: Scene) -> None:
    """Move a view to a CSV source."""
    table = pq.read_table(scene.repo / _SHOPS)
    times = table["event_time"].cast(pa.timestamp("s", tz="UTC"))
    pa_csv.write_csv(table.set_column(table.column_names.index("event_time"), "event_time", times), scene.repo / _CSV)
    edit(scene.repo, _SHOPS, _CSV)


def _applied(scene: Scene) -> None:
    for word in ("apply", "materialize"):
        assert run(word, "--repo", scene.repo).code == 0


def _line(text: str) -> Arrange:
    def arrange(scene: Scene) -> None:
        with (scene.repo / _CSV).open("a") as file:
            file.write(text)

    return arrange


DAMAGE: dict[str, tuple[Arrange, Arrange, str]] = {
    "truncated Parquet": (truncated(_SHOPS), truncated(_LABELS), "cannot be read"),
    "garbage Parquet": (written(_SHOPS, b"garbage"), written(_LABELS, b"garbage"), "cannot be read"),
    "empty file": (written(_SHOPS, b""), written(_LABELS, b""), "cannot be read"),
    "vanished file": (_gone(_SHOPS), _gone(_LABELS), "has no file"),
}
VIEW_VERBS = (
    ("plan",),
    ("apply",),
    ("validate",),
    ("materialize",),
    ("materialize", "--dry-run"),
    ("materialize", "--no-check"),
)
LABEL_VERBS = (("plan",), ("apply",), ("validate",), ("train", "fraud"))


# In make test, these meet each damage, and each other verb meets one.
_ALL_DAMAGE = ("materialize",), ("train", "fraud")


def _damaged() -> Iterator[Case]:
    for i, (what, (shops, labels, problem)) in enumerate(DAMAGE.items()):
        # What is not there yet is no error of definitions.
        declares = ("plan",), ("apply",)
        views = f"{what} of a view", shops, "view 'shop_risk'"
        tables = f"{what} of labels", labels, "label table of model 'fraud'"
        for verbs, (name, arrange, thing) in ((VIEW_VERBS, views), (LABEL_VERBS, tables)):
            for j, words in enumerate(verbs):
                if problem == "has no file" and words in declares:
                    continue
                soak = words not in _ALL_DAMAGE and j % len(DAMAGE) != i
                yield _at(words, name, arrange, thing=thing, says=(problem,), soak=soak)


def _at(words: tuple[str, ...], what: str, arrange: Arrange, **parts: Any) -> Case:  # noqa: ANN401 - fields of Case
    return Case(name=f"{' '.join(words)}: {what}", ask=verb(*words), code=4, arrange=arrange, **parts)


CASES: tuple[Case, ...] = (
    *_damaged(),
    *(
        _at(words, "pages lost", _pages_lost(_SHOPS), thing="'shop_risk'", says=("cannot be read",))
        for words in (("validate",), ("materialize",))
    ),
    *(
        _at(words, "label pages lost", _pages_lost(_LABELS), thing="batch 'labels:fraud'", says=("cannot be read",))
        for words in (("validate",), ("train", "fraud"))
    ),
    *(
        _at(
            words, "a column renamed since", rewritten(_SHOPS, "refund_share", None, "share"),
            thing="view 'shop_risk'", says=("'refund_share'",), fix="it has shop_id",
        )
        for words in (("validate",), ("materialize",))
    ),
    _at(
        ("train", "fraud"), "a label column renamed since", rewritten(_LABELS, "fraud", None, "label"),
        thing="label table of model 'fraud'", says=("no such column", "'fraud'"), fix="it has card_id",
    ),
    _at(("plan",), "CSV of another shape", both(_as_csv, written(_CSV, "a;b\n1;2\n")),
        thing="source of view 'shop_risk'", says=("no such column", "'shop_id'"), fix="add the column"),
    _at(("materialize",), "CSV with text for a number", both(_as_csv, _applied, _line("s,2025-01-31T12:00:00Z,much\n")),
        thing="source of view 'shop_risk'", says=("'refund_share'", "much"), fix="correct"),
    _at(("materialize",), "CSV with a ragged line since", both(_as_csv, _applied, _line("1,2,3,4,5\n")),
        thing="view 'shop_risk'", says=("cannot be read",), fix=""),
    _at(ROUND, "vanished file of labels", _gone(_LABELS),
        thing="label table of model 'fraud'", says=("has no file",), fix="put the file there",
        added=(LEDGER,)),
)  # fmt: skip
