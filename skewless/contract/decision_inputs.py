"""The inputs of decisions: which events meet a condition, and the fields of an event as a model's inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import Transform
from skewless.contract.decisions import WHEN, Crosses
from skewless.contract.dtypes import DType
from skewless.contract.status import BoolArray
from skewless.contract.transforms import Columns, TransformRunner
from skewless.contract.windows.view import EventSource


class ConditionRunner(TransformRunner):
    """Runs the condition of a decision stream: numbers are float64 (null: NaN), text is objects.

    Args:
        source: of the events.
    """

    def __init__(self, condition: Transform, source: EventSource) -> None:
        types = {column.name: column.dtype for column in source.readable}
        names = [ref.name for ref in condition.inputs]
        super().__init__(condition, {name: each if (each := types[name]).is_text else DType.FLOAT64 for name in names})
        function = self._function
        self._function = lambda inputs: {WHEN: function(inputs)}

    def find_matches(self, inputs: Columns) -> BoolArray:
        """Return which events meet the condition, shape ``(n,)``; raises as ``run``."""
        return np.asarray(self.run(inputs)[WHEN], dtype=np.bool_)


def find_crossings(when: Crosses, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> BoolArray:
    """Return which values have crossed the bound, shape ``(n,)``.

    >>> nan = float("nan")
    >>> find_crossings(Crosses(feature="v:f", bound=3), np.array([2, 3, nan]), np.array([3, 4, 5])).tolist()
    [True, False, True]
    """
    # NaN compares as false: null is below the bound.
    was, now = before >= when.bound, after >= when.bound
    up, down = ~was & now, was & ~now
    return np.asarray({"up": up, "down": down, "both": up | down}[when.direction], dtype=np.bool_)
