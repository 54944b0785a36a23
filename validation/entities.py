"""The entities of logged predictions, as joins want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from skewless.contract.plan import View
from skewless.contract.request import Ask
from skewless.contract.windows.view import WindowView


def key_rows(view: View | WindowView, ask: Ask) -> list[tuple[Any, ...]]:
    """Return the key of each prediction for one view."""
    return list(zip(*(ask.keys[key.name] for key in view.keys), strict=True))


def entity_table(view: View | WindowView, ask: Ask, t: Sequence[int] | Any) -> pa.Table:  # noqa: ANN401 - numpy int64 too
    """Return the entity rows of the predictions for a point-in-time join at times ``t``."""
    types = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64()}
    columns = {key.name: pa.array(ask.keys[key.name], types[key.dtype]) for key in view.keys}
    return pa.table({**columns, "__t": pa.array(t, pa.int64())})
