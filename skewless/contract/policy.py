"""The policy after a score: a row-wise function of score, features, inputs and lists gives an action (SEMANTICS 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from skewless.contract.columns import Column, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name

SCORE, ACTION, REASONS = "score", "action", "reasons"
OUTPUTS = (Column(name=ACTION, dtype=DType.STRING), Column(name=REASONS, dtype=DType.STRING))
# By the name of a list: the number of its version, and its values as text.
ListValues: TypeAlias = Mapping[str, tuple[int, frozenset[str]]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A function that gives the action about a score.

    Args:
        function: of a numpy-only module. It takes a dict of arrays: ``score``, the columns of ``reads``, and for each
            list whether it has the row's value, as bools. It returns two texts per row in a dict: ``action``, or null
            for none, and ``reasons``, codes with blanks between them.
        actions: every action that it may return.
        reads: numeric features by their labels in vectors (``VIEW__FEATURE``), request fields and join keys by their
            names. Features and floats are float64 with NaN for null; join keys are text.
        lists: name of a list -> the join key or request field that is looked up in it.
    """

    function: Callable[[Any], Any] | Transform
    actions: tuple[str, ...]
    reads: tuple[str, ...] = ()
    lists: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names; raise DefinitionError."""
        for name in ("actions", "reads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "lists", dict(sorted(self.lists.items())))
        if not self.actions or not all(self.actions):
            raise DefinitionError("Policy.actions", "are not names", value=self.actions, fix="name every action")
        for name in self.lists:
            check_name("list", name)
        names = [SCORE, *self.reads, *self.lists]
        if len(set(names)) != len(names):
            raise DefinitionError("Policy.reads", "have a name twice", value=names, fix="give each another name")
