"""The pages, in the order of the menu, and what can be done from them."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.control_room.actions import Action
from skewless.control_room.page import Page
from skewless.control_room.pages import model, model_actions, model_version, models, now

PAGES: Sequence[Page] = (now.PAGE, models.PAGE, model.PAGE, model_version.PAGE)
ACTIONS: Sequence[Action] = (*model_actions.ACTIONS,)
