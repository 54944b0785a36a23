"""A name is one plain part of a path, a key and an address; whatever holds one is built with such a name or not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import DefinitionError, PackageError
from skewless.contract.names import check_name, is_name
from skewless.contract.plan import FeaturePlan, Service, View
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.storage.package_folder import PackageFolder
from tests.worlds.decisions import last_decision
from tests.worlds.hostile_text import NAMES, WRONG_NAMES
from tests.worlds.packages import store_at
from tests.worlds.plans import make_plan, make_transform, make_view

ROOT = Path("/state/packages")
PLAN = make_plan(
    ["v.x", "made.y"],
    views=[make_view()],
    transforms=[make_transform("def f(c):\n    return {'y': c['x']}\n", ["v.x"])],
)
NAMED: dict[str, Callable[[str], object]] = {
    "view": lambda name: replace(PLAN.views[0], name=name),
    "service": lambda name: Service(name=name, features=()),
    "transform": lambda name: replace(PLAN.transforms[0], name=name),
    "project": lambda name: replace(PLAN, project=name),
    "windowed view": lambda name: WindowView(
        name=name, keys=(), source="s", event_column="t", inputs=(), aggregates=()
    ),
    "event source": lambda name: EventSource(
        name=name, kind="push", event_column="t", columns=(), earliest_us=0, latest_us=1
    ),
}


@given(st.one_of(st.from_regex(r"[A-Za-z0-9_.\\/%*{}-]{1,110}"), st.text(max_size=20), WRONG_NAMES))
def test_what_is_a_name_stays_in_its_place(name: str) -> None:
    if not is_name(name):
        with pytest.raises(DefinitionError):
            check_name("thing", name)
        return
    path = Path(f"/state/{name}")
    assert path.parent == Path("/state")
    assert path.name == name
    assert name.isascii()
    assert quote(name, safe="") == name
    assert len(f"{name}-{'0' * 16}.json.lock") < 255
    assert not re.search(r"[\s*?\[\]{}|:/\\]", name)
    assert name[0] not in "-."
    check_name("thing", name)


@pytest.mark.parametrize("kind", NAMED)
@given(WRONG_NAMES)
def test_nothing_is_built_with_another_name(kind: str, name: str) -> None:
    with pytest.raises(DefinitionError, match="is not a name") as refusal:
        NAMED[kind](name)
    assert len(str(refusal.value)) < 1_000


@given(st.sampled_from(("views", "services", "transforms")), WRONG_NAMES)
def test_nor_read_from_a_plan_that_somebody_wrote(part: str, name: str) -> None:
    body = PLAN.as_dict()
    body[part] = [{**item, "name": name} for item in body[part]]
    with pytest.raises(DefinitionError, match="is not a name"):
        FeaturePlan.from_dict(body)


@given(WRONG_NAMES)
def test_no_folder_of_a_model_has_another_name(name: str) -> None:
    store = store_at(ROOT)
    asks: tuple[Callable[[], object], ...] = (
        lambda: PackageFolder(ROOT).model_folder(name),
        lambda: PackageFolder(ROOT).list_versions(name),
        lambda: open_package(store, name, "000001"),
        lambda: store.aliases.get(name, "champion"),
        lambda: store.aliases.get("late", name if "/" in name else f"../{name}"),
        lambda: last_decision(store.decisions, name, "000001"),
        lambda: store.traffic.get(name),
        lambda: open_package(store, "late", name),
    )
    for ask in asks:
        with pytest.raises(PackageError):
            ask()


def test_folders_that_are_no_models_are_nobodys(tmp_path: Path) -> None:
    for name in ("late", "fraud-v2", "lost+found", ".snapshot", "a b"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("x")
    assert PackageFolder(tmp_path).list_models() == ["fraud-v2", "late"]


def test_the_names_at_hand_are_all_wrong() -> None:
    assert [name for name in NAMES if is_name(name)] == []
    assert isinstance(PLAN.views[0], View)
