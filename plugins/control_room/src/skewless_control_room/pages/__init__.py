"""The pages, in the order of the menu, and what can be done from them."""

from __future__ import annotations

from collections.abc import Sequence

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.host.plugins import load_plugins
from skewless_control_room.actions import Action
from skewless_control_room.page import Page
from skewless_control_room.pages import (
    changes,
    entity,
    model,
    model_actions,
    model_version,
    models,
    now,
    prediction,
    predictions,
    refused,
    run,
    runs,
    search,
    views,
)

PAGES: Sequence[Page] = (
    now.PAGE,
    models.PAGE,
    model.PAGE,
    model_version.PAGE,
    views.PAGE,
    views.VIEW_PAGE,
    predictions.PAGE,
    prediction.PAGE,
    entity.PAGE,
    runs.PAGE,
    run.PAGE,
    refused.PAGE,
    changes.PAGE,
    changes.ONE,
    search.PAGE,
)
_RESERVED = frozenset({"actions", "health", "index", "sign-in", "sign-out", "static"})
ACTIONS: Sequence[Action] = (*now.ACTIONS, *model_actions.ACTIONS, *entity.ACTIONS, *run.ACTIONS, *refused.ACTIONS)


def all_pages() -> Sequence[Page]:
    """Return the pages of the room, and behind them those of other packages: entry points of ``skewless.pages``.

    Raises:
        DefinitionError: a registered page cannot be imported, is not a page, or has the path of another one.
    """
    pages = list(PAGES)
    for name, page in load_plugins("skewless.pages").items():
        thing = f"entry point {name!r} of skewless.pages"
        if not isinstance(page, Page):
            raise DefinitionError(thing, "is not a Page", value=type(page).__name__, fix="register a Page")
        taken = {known.path.split("/")[1] for known in pages} | _RESERVED
        if page.path.split("/")[1:2] == [] or page.path.split("/")[1] in taken:
            raise DefinitionError(thing, "has a path that is in use", value=page.path, fix="use another first word")
        pages.append(page)
    return pages
