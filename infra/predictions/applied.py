"""Up to where the states that predictions read had been applied, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from skewless.contract.status import Int64Array
from skewless.infra.online.window_states import StateProgress
from skewless.infra.predictions.arrow import lists, numbers
from skewless.infra.predictions.schema import APPLIED


def window_columns(
    applied: Sequence[Mapping[str, StateProgress]], lengths: Int64Array, names: Sequence[str]
) -> dict[str, pa.Array]:
    """Return generation and applied positions for each view of each row; null for views without windows.

    Args:
        applied: of each record, per windowed view.
        lengths: number of rows of each record.
        names: of all views.
    """
    n, width = int(lengths.sum()), len(names)
    places = [place for place, name in enumerate(names) if name in applied[0]]
    if not places:
        return {"generation": pa.nulls(n * width, pa.int32()), "applied": pa.nulls(n * width, pa.list_(APPLIED))}
    views = {place: [record[names[place]] for record in applied] for place in places}
    generations = np.zeros((n, width), dtype=np.int32)
    for place, each in views.items():
        generations[:, place] = np.repeat([one.generation for one in each], lengths)
    windowed = np.tile(np.isin(np.arange(width), places), n)
    ends, slots = _slots(views, lengths, width)
    return {"generation": numbers(generations, windowed), "applied": lists(ends, slots, windowed)}


def _slots(
    views: Mapping[int, Sequence[StateProgress]], lengths: Int64Array, width: int
) -> tuple[Int64Array, pa.StructArray]:
    """Return the slots row by row, of a row view by view, and where those of each view end."""
    slots = [one.slots for each in views.values() for one in each]
    firsts = np.tile((np.cumsum(lengths) - lengths) * width, len(views)) + np.repeat(list(views), len(lengths))
    counts = [len(each.seq) for each in slots]
    read = np.concatenate([each.entity for each in slots]) * width + np.repeat(firsts, counts)
    order = np.argsort(read, kind="stable")
    partition = np.concatenate([each.partition for each in slots])[order]
    seq = np.concatenate([each.seq for each in slots])[order]
    ends = np.cumsum(np.bincount(read, minlength=int(lengths.sum()) * width))
    return np.append(0, ends), pa.StructArray.from_arrays([numbers(partition), numbers(seq)], fields=list(APPLIED))
