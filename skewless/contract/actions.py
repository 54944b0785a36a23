"""Actions after the score: decisions by thresholds, and exploration, which gives a share of predictions one action."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from skewless.contract.errors import DefinitionError
from skewless.contract.traffic import entity_position

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Exploration: a declared share of the predictions gets one action, whatever the score (SEMANTICS 10.6).

    Args:
        share: of the predictions, above 0 and below 1.
        action: of these predictions: a name of ``ModelSpec.decisions`` whose outcome can be observed.
        sticky: join keys or request fields whose values choose; none: the id of the prediction. Choose a field that
            repeated attempts share, or a caller can try until a prediction explores.
        salt: seed of the choice; another salt chooses others.
    """

    share: float
    action: str
    sticky: tuple[str, ...] = ()
    salt: str = ""

    def __post_init__(self) -> None:
        """Check the share."""
        object.__setattr__(self, "sticky", tuple(self.sticky))
        if not 0 < self.share < 1:
            raise DefinitionError("Explore.share", "is not between 0 and 1", value=self.share, fix="give 0.05")

    def check_inputs(self, model: str, names: Iterable[str]) -> None:
        """Check that the sticky names are inputs of the model.

        Raises:
            DefinitionError: one is not.
        """
        known = list(names)
        for name in self.sticky:
            if name not in known:
                fix = f"use {', '.join(known)}"
                raise DefinitionError(
                    f"model {model!r} explore", "has a sticky name that is not an input", value=name, fix=fix
                )

    def choose(self, model: str, values: Iterable[Sequence[object]]) -> list[bool]:
        """Return which predictions explore: the same for equal values, in any process and at any time.

        Args:
            model: name of the model: two models choose independently.
            values: of each prediction, the values of ``sticky``, or its id.

        >>> chosen = Explore(share=0.25, action="approve").choose("fraud", [(str(i),) for i in range(1_000)])
        >>> 200 < sum(chosen) < 300
        True
        """
        salt = f"explore\x1f{model}\x1f{self.salt}"
        return [entity_position(salt, row) < self.share for row in values]

    def choose_rows(self, model: str, ids: Sequence[str], columns: Mapping[str, Sequence[object]] | None) -> list[bool]:
        """Return which of n predictions explore.

        Args:
            ids: of the predictions.
            columns: the values of the model's inputs, n for each; None: it got vectors, which have no sticky values,
                so with ``sticky`` none explores.
        """
        if not self.sticky:
            return self.choose(model, ((name,) for name in ids))
        if columns is None:
            return [False] * len(ids)
        return self.choose(model, zip(*(columns[name] for name in self.sticky), strict=True))

    def act(self, actions: Sequence[str | None], explored: Sequence[bool]) -> tuple[list[str | None], list[float]]:
        """Return the action of each prediction, and its propensity: its probability before the choice.

        Args:
            actions: what the policy does without exploration; None: nothing.
            explored: result of ``choose``.

        >>> Explore(share=0.1, action="approve").act(["approve", "decline", "decline"], [True, True, False])
        (['approve', 'approve', 'decline'], [1.0, 0.1, 0.9])
        """
        taken = [self.action if explores else action for action, explores in zip(actions, explored, strict=True)]
        probabilities = [
            1.0 if action == self.action else self.share if explores else 1.0 - self.share
            for action, explores in zip(actions, explored, strict=True)
        ]
        return taken, probabilities


def decide(decisions: Mapping[str, float], scores: Scores) -> list[str | None]:
    """Return for each score the last decision whose threshold it reaches; None: it reaches none.

    Args:
        decisions: name -> lowest score, ascending, as in ``ModelSpec``.
        scores: ``(n,)`` float64; NaN reaches no threshold.

    >>> import numpy as np
    >>> decide({"approve": 0.0, "review": 0.5, "decline": 0.9}, np.array([0.5, 0.95, -1.0]))
    ['review', 'decline', None]
    """
    lowest = list(decisions.values())
    names = [None, *decisions]
    # Not numpy's searchsorted: for one row it takes ten times as long.
    return [names[bisect_right(lowest, score)] if score == score else None for score in scores.tolist()]  # noqa: PLR0124 - NaN


def most_likely(classes: Sequence[str], scores: Scores) -> list[str]:
    """Return for each row the class with the largest score; the first, if several are equal.

    Args:
        classes: names of the columns.
        scores: ``(n, k)`` float64.

    >>> import numpy as np
    >>> most_likely(("cat", "dog"), np.array([[0.5, 0.5], [0.1, 0.9]]))
    ['cat', 'dog']
    """
    return [classes[column] for column in scores.argmax(axis=1).tolist()]
