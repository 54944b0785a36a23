"""A project of one latest-value view in memory, read from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewless.contract.clock import ManualClock
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec, ViewRead
from skewless.contract.status import Status
from skewless.contract.vector import null_mask, view_status
from skewless.infra.materialization.materialize import Materializer
from skewless.infra.offline.engine import connect
from skewless.infra.offline.join import Order
from skewless.infra.offline.views import OfflineViews
from tests.memory_store import MemoryStore


class World:
    """A project of one view with the key ``id`` and the feature ``x``, int64."""

    def __init__(self, root: Path, view: View) -> None:
        self.root, self.view, self.store = root, view, MemoryStore()
        self.connection = connect(root / "spill", threads=4)
        self.views = OfflineViews(root / "state", self.connection)

    def run(self, now_us: int) -> None:
        Materializer(
            project="p",
            repo=self.root,
            state=self.root / "state",
            connection=self.connection,
            online=lambda: self.store,
            ledger=self.views.ledger,
            clock=ManualClock(now_us),
        ).run([self.view])

    def online(self, keys: Sequence[int]) -> ViewRead:
        """Return what the online store holds now."""
        codec = KeyCodec("p", self.view)
        names = [codec.encode([key]) for key in keys]
        return RowCodec(self.view).decode([None if name is None else self.store.rows.get(name) for name in names])

    def offline(self, keys: Sequence[int], t_us: int, order: Order) -> ViewRead:
        """Return what the log says that stood at a time."""
        asked = {"id": pa.array(keys, pa.int64()), "__t": pa.array([t_us] * len(keys), pa.int64())}
        return self.views.read_view(self.view, pa.table(asked), order)

    def seen(self, read: ViewRead, t_us: int) -> list[tuple[str, int | None]]:
        """Return status and ``x`` of each row as a model sees it at a time."""
        status = view_status(read, np.full(len(read.found), t_us, dtype=np.int64), self.view.ttl_us)
        nulls, values = null_mask(read, status, "x").tolist(), read.values["x"].tolist()
        return [
            (Status(one).name, None if null else int(value))
            for one, null, value in zip(status.tolist(), nulls, values, strict=True)
        ]
