"""An apply from a checkout that is behind sets nothing back that another checkout has applied, unless it is told to."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError
from skewless.project import Project
from tests.worlds.windowed import CONFIG, HEAD

VIEW = """\
{name} = FeatureView(
    name="{name}", entities=[carrier], ttl=timedelta(hours={hours}),
    schema=[Field(name="carrier", dtype=String), Field(name="fleet", dtype=Float64)],
    source=FileSource(path="data/{name}.parquet", timestamp_field="event_time", created_timestamp_column="created"),
)
"""
SERVICE = "service = FeatureService(name='all', features=[{names}])\n"
NAMES = ("a", "b", "c")
Views = dict[str, int]


@dataclass
class Checkout:
    """One clone of the repo, and what the test knows of it."""

    folder: Path
    database_url: str
    views: Views = field(default_factory=lambda: {"a": 1})
    base: Views | None = None

    def project(self) -> Project:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "feature_store.yaml").write_text(CONFIG)
        views = [VIEW.format(name=name, hours=hours) for name, hours in sorted(self.views.items())]
        text = "\n".join([HEAD, *views, SERVICE.format(names=", ".join(sorted(self.views)))])
        (self.folder / "definitions.py").write_text(text)
        return Project(self.folder, database_url=self.database_url)


def changed(old: Views, new: Views) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 20))])
def test_what_would_be_set_back_is_refused(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    url = f"sqlite:///{tmp_path}/shared.db"
    checkouts = [Checkout(tmp_path / name, url) for name in ("ada", "bob", "ci")]
    plans = list[Views]()
    outcomes = {True: 0, False: 0}
    for turn in range(14):
        checkout = checkouts[turn % 3]
        if checkout.folder.name == "ci":  # a fresh clone each time, with the files of one of the others
            checkout = Checkout(tmp_path / f"ci{turn}", url, views=dict(draw.choice(checkouts[:2]).views))
        elif plans and draw.random() < 0.4:
            checkout.views = dict(plans[-1])  # git pull
        if checkout.base is not None or draw.random() < 0.5:
            checkout.views[draw.choice(NAMES)] = draw.randrange(1, 9)
        before, now = checkout.views, plans[-1] if plans else None
        if now is None or now in (checkout.base, before):
            lost = set[str]()
        elif checkout.base is not None:
            lost = changed(checkout.base, now) - changed(checkout.base, before)
        else:
            earlier = next((plan for plan in reversed(plans[:-1]) if plan == before), None)
            lost = set() if earlier is None else changed(earlier, now)
        with checkout.project() as project:
            report = project.plan()
            assert {name.split("'")[1] for name in report.reverts if name.startswith("view")} == lost
            if lost:
                with pytest.raises(ConflictError, match="would set back what another checkout has applied"):
                    project.apply()
                assert project.plan().replaces == report.replaces
                with pytest.raises(ConflictError, match="not the expected one"):
                    project.apply(expect="0123456789ab")
            outcomes[bool(lost)] += 1
            if not lost or draw.random() < 0.5:
                project.apply(expect=report.replaces if lost else None)
                checkout.base = dict(before)
                plans += [dict(before)] if before != now else []
    assert min(outcomes.values()) > 0


def test_one_checkout_may_go_back_to_what_it_had(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "p", f"sqlite:///{tmp_path}/shared.db")
    for hours in (1, 2, 1):
        checkout.views = {"a": hours}
        with checkout.project() as project:
            assert project.apply().applied
    with checkout.project() as project, pytest.raises(ConflictError, match="not the expected one"):
        project.apply(expect="none")
