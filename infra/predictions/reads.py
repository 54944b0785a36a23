"""What the views answered in logged predictions, as Arrow: for each row a list of one struct per view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from skewless.contract.reads import joined
from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, StatusArray
from skewless.infra.online.window_states import StateProgress
from skewless.infra.predictions.applied import window_columns
from skewless.infra.predictions.arrow import end_to_end, equal_lists, numbers
from skewless.infra.predictions.constants import Constants
from skewless.infra.predictions.schema import READ

_ROW_FIELDS = ("event_ts", "created_ts", "seq", "run_id")


def reads_of(
    versions: Sequence[Mapping[str, Versions]],
    status: Sequence[StatusArray],
    applied: Sequence[Mapping[str, StateProgress]],
    lengths: Int64Array,
    constants: Constants,
) -> pa.ListArray:
    """Return the reads of records of one origin and source, in the order of the plan's views.

    Args:
        versions, status, applied: of each record, as there.
        lengths: number of rows of each record.
    """
    n, names = int(lengths.sum()), [name for name, _ in constants.views]
    if not names:
        return equal_lists(n, 0, pa.nulls(0, READ))
    found = joined(versions)
    each_view = [found[name] for name in names]
    columns = {
        **constants.read_columns(n),
        "status": numbers(end_to_end(status)),
        **{field: numbers(np.stack([getattr(view, field) for view in each_view], axis=1)) for field in _ROW_FIELDS},
        **window_columns(applied, lengths, names),
    }
    reads = pa.StructArray.from_arrays([columns[field.name] for field in READ], fields=list(READ))
    return equal_lists(n, len(names), reads)
