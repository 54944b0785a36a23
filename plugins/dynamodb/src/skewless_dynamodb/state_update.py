"""The merge of an update into a state, for stores that cannot run it themselves."""

from __future__ import annotations

import struct

from skewless.contract.windows.state_layout import EVER
from skewless.infra.reads.online.port import APPENDED, FOREIGN, LONG, PARTLY_SEEN, SEEN

_UPDATE = struct.Struct("<8sq8sqq")
_HEAD = struct.Struct("<8sIIq")
_SLOT = struct.Struct("<8sq")


def append_update(state: bytes | None, update: bytes) -> tuple[int, bytes | None]:
    """Return the result of an update as a letter, and the new state; None: the state stays as it is.

    ``skewless/contract/windows/codec.py`` describes the bytes of states and updates.
    """
    view, limit, partition, first, last = _UPDATE.unpack_from(update)
    slot, records = _SLOT.pack(partition, last), update[_UPDATE.size :]
    if not state:
        return APPENDED, _HEAD.pack(view, 1, 0, int(EVER)) + slot + records
    if len(state) < _HEAD.size or state[:8] != view:
        return FOREIGN, None
    _, slots, base, m = _HEAD.unpack_from(state)
    end = _HEAD.size + slots * _SLOT.size
    if len(state) < end:
        return FOREIGN, None  # corrupt: the state is too short for its slots
    places = range(_HEAD.size, end, _SLOT.size)
    at = next((place for place in places if state[place : place + 8] == partition), None)
    if at is None:
        new = _HEAD.pack(view, slots + 1, base, m) + state[_HEAD.size : end] + slot + state[end:] + records
    else:
        _, applied = _SLOT.unpack_from(state, at)
        if applied >= first:
            return SEEN if applied >= last else PARTLY_SEEN, None
        new = state[:at] + slot + state[at + _SLOT.size :] + records
    return LONG if len(new) > 2 * base + limit else APPENDED, new
