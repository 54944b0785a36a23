"""The pages, in the order of the menu, and what can be done from them."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.control_room.actions import Action
from skewless.control_room.page import Page
from skewless.control_room.pages import now, refused, views

PAGES: Sequence[Page] = (
    now.PAGE,
    views.PAGE,
    views.VIEW_PAGE,
    refused.PAGE,
)
ACTIONS: Sequence[Action] = (*refused.ACTIONS,)
