"""Plans that are missing, damaged, older than the registry, or other than a model's."""

from __future__ import annotations

import json
from collections.abc import Iterator

from skewless.infra.platform.storage.project_state import ProjectState
from tests.nightly.integration.errors.case import ROUND, Arrange, Case, ErrorReply, post, rows, verb
from tests.nightly.integration.errors.changes import narrowed
from tests.nightly.integration.errors.requests import LOGGED
from tests.nightly.integration.errors.scene import GOOD, Scene
from tests.worlds.applied_plans import delete_plans, edit_plan
from tests.worlds.waiting import eventually

_ROW = json.dumps(GOOD)
_VERBS = (
    ("validate",),
    ("materialize",),
    ("train", "fraud"),
    ("serve",),
    ("predict", "fraud", "--row", _ROW),
    ("replay", "fraud"),
    ROUND,
)


def _unapplied(scene: Scene) -> None:
    delete_plans(ProjectState(scene.state))


def _damaged(scene: Scene) -> None:
    edit_plan(ProjectState(scene.state), dict.clear)


def _registry_moved(scene: Scene) -> None:
    """Change the registry as another tool would: it is longer by a field that Feast's own format skips."""
    path = scene.state / "registry.db"
    path.write_bytes(path.read_bytes() + b"\xc0\x3e\x01")


def _served_narrowed(scene: Scene) -> None:
    narrowed(scene)
    scene.serve()


def _from_its_own_view(scene: Scene, said: ErrorReply) -> None:
    assert "card_days__country" in said.body["predictions"][0]["features"]
    assert scene.server is not None
    assert scene.server.get("/models")["refused"] == {}
    eventually(lambda: scene.logged() > scene.logged_before)


def _each(words: tuple[str, ...]) -> Iterator[Case]:
    def case(what: str, arrange: Arrange, thing: str, *says: str, fix: str) -> Case:
        return Case(
            name=f"{words[0]}: {what}", ask=verb(*words), code=3, arrange=arrange, thing=thing, says=says, fix=fix
        )

    yield case("nothing applied", _unapplied, "project in", "no applied plan", fix="run `skewless apply`")
    yield case(
        "plan older than the registry", _registry_moved, "plan ", "older than the Feast registry", "registry.db",
        fix="then `skewless apply`",
    )  # fmt: skip
    yield case("damaged plan", _damaged, "applied plan ", "cannot be read", fix="`skewless apply` again")


CASES: tuple[Case, ...] = (
    *(case for words in _VERBS for case in _each(words)),
    Case(
        name="serve: a model of another plan goes on", soak=True, ask=post(rows()), code=200, arrange=_served_narrowed,
        after=_from_its_own_view, added=LOGGED,
    ),
    Case(
        name="predict: a model of another plan goes on", ask=verb("predict", "fraud", "--row", _ROW), code=0,
        arrange=narrowed, added=LOGGED,
    ),
    Case(
        name="train: a model that is not in the plan", ask=verb("train", "nosuch"), code=6,
        thing="model", says=("not in the applied plan", "'nosuch'"), fix="fraud, strict",
    ),
    Case(
        name="replay: a model that is not in the plan", ask=verb("replay", "nosuch"), code=6,
        thing="model", says=("is unknown", "'nosuch'"), fix="fraud, strict",
    ),
    Case(
        name="validate: neither view nor model", ask=verb("validate", "nosuch"), code=6,
        thing="name", says=("'nosuch'",), fix="card_days, fraud, shop_risk, strict",
    ),
)  # fmt: skip
