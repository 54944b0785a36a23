"""The pages, in the order of the menu, and what can be done from them."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.control_room.actions import Action
from skewless.control_room.page import Page
from skewless.control_room.pages import entity, now, prediction, predictions

PAGES: Sequence[Page] = (
    now.PAGE,
    entity.PAGE,
    prediction.PAGE,
    predictions.PAGE,
)
ACTIONS: Sequence[Action] = (*entity.ACTIONS,)
