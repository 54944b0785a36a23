"""How much of a list of references is the user's own, and how much Feast appended to it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

_CALLER = "get_historical_features"
_ASKED = "_feature_refs"


def asked_count(refs: Sequence[str]) -> int | None:
    """Return how many of the first references the user asked for, None where that cannot be told.

    Feast 0.67 appends the inputs of on-demand views in the order of a set, which changes from process to process,
    and does not pass on where they begin. Only the frame of its function that we are called from still knows.
    """
    frame = inspect.currentframe()
    while frame is not None:
        asked = frame.f_locals.get(_ASKED) if frame.f_code.co_name == _CALLER else None
        if isinstance(asked, list) and list(refs[: len(asked)]) == asked:
            return len(asked)
        frame = frame.f_back
    return None
