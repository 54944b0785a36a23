"""Consecutive rows of a log partition whose events are decided before they are applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from skewless.contract.keys import KeyCodec
from skewless.contract.window_events import EventSelector, ViewEvents
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import EVENT, REJECT, SEQ

KeyIndex: TypeAlias = dict[bytes, list[int]]  # indices of the events by the key of their entity's state


class PendingEvents:
    """Consecutive rows of a log partition that the states may lack.

    Args:
        partition: name of the log partition.
        rows: accepted and rejected ones, with their positions.
        ensure_logged: returns when the rows are in the log: reads of the log and writes of decisions call it before.
    """

    def __init__(self, partition: str, rows: pa.Table, ensure_logged: Callable[[], None] = lambda: None) -> None:
        self.partition = partition
        self.ensure_logged = ensure_logged
        self.number = int(partition_number(partition))
        self.first: int = rows[SEQ][0].as_py()
        self._rows = rows.filter(rows[REJECT].is_null()) if rows[REJECT].null_count < rows.num_rows else rows
        self._views: dict[str, tuple[ViewEvents, dict[bytes, list[int]]]] = {}
        self._selected: dict[str, ViewEvents] = {}

    @property
    def selected(self) -> dict[str, ViewEvents]:
        """The events that count in each view that was read, by the hash of the view."""
        return dict(self._selected)

    def of_view(self, view: WindowView, selector: EventSelector, keys: KeyCodec) -> tuple[ViewEvents, KeyIndex]:
        """Return the events that count in a view, and their indices by the key of the entity's state."""
        name = f"{keys.prefix!r}"
        if name not in self._views:
            origin = EventOrigins(
                ts=self._rows[EVENT].to_numpy(),
                partition=np.full(self._rows.num_rows, self.number),
                seq=self._rows[SEQ].to_numpy(),
            )
            # Another generation of a view has the same events under other keys.
            events = self._selected.get(view.hash) or selector.select(self._rows, origin)
            self._selected[view.hash] = events
            index: dict[bytes, list[int]] = {}
            if len(events.rows):
                columns = {key.name: events.keys[key.name].to_pylist() for key in view.keys}
                for i, key in enumerate(keys.encode_columns(columns)):
                    if key is not None:
                        index.setdefault(key, []).append(i)
            self._views[name] = events, index
        return self._views[name]
