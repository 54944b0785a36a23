"""The rows of a view are deleted so that its marker never covers missing rows, wherever the work stops."""

from __future__ import annotations

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.online.port import Marker, delete_rows
from tests.memory_store import MemoryStore

MARKER, ROWS = "sk:p:h:applied", [b"sk:p:h:{id|%d}" % number for number in range(3)]


class MarkersLast(MemoryStore):
    """Deletes one key after another, markers last, and fails or lets another run write after some of them."""

    def __init__(self, steps: int, *, fails: bool) -> None:
        super().__init__()
        self._left, self._fails = steps, fails
        self.write()

    def write(self) -> None:
        """Write all rows and then the marker, as a run does."""
        self.put([*ROWS, b"sk:p:other:{id|1}"], [b"r" * 40] * 4)
        self.set_markers({MARKER: Marker(2), "sk:p:other:applied": Marker(0)})

    def delete(self, prefix: str) -> int:
        """See ``OnlineWriter``."""
        names = [*(key.decode() for key in self.rows), *self.markers]
        return sum(self._delete_key(name) for name in names if name.startswith(prefix))

    def _delete_key(self, name: str) -> int:
        self._left -= 1
        if self._left == -1:
            if self._fails:
                raise StoreError("store", "is away", fix="wait")
            self.write()
        return super().delete(name)


@pytest.mark.parametrize("steps", range(4))
def test_4_5_no_marker_is_left_beside_missing_rows(steps: int) -> None:
    store = MarkersLast(steps, fails=True)
    with pytest.raises(StoreError):
        delete_rows(store, "p", "h")
    assert MARKER not in store.markers or set(ROWS) <= store.rows.keys()
    delete_rows(store, "p", "h")
    assert (list(store.rows), list(store.markers)) == ([b"sk:p:other:{id|1}"], ["sk:p:other:applied"])


@pytest.mark.parametrize("steps", range(4))
def test_4_5_a_run_that_writes_while_this_process_is_suspended_leaves_no_marker(steps: int) -> None:
    store = MarkersLast(steps, fails=False)
    assert delete_rows(store, "p", "h") >= 4
    assert list(store.markers) == ["sk:p:other:applied"]
