"""Every value type of Feast through every path: from the source online, by push of both kinds, and offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from plugins.feast.tests.conformance.known import BY_FEAST, NEVER_PUSHED
from plugins.feast.tests.conformance.value_types import GROUP_OF, GROUPS, VALUE_TYPES, ValueType
from tests.servers.node import Node
from tests.worlds.feast_conformance import ConformanceProject, ago, asked, plain_name, table_of
from tests.worlds.feast_repo import tear_down, users_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
EACH = pytest.mark.parametrize("name", VALUE_TYPES)
PUSHED, AWAITED = (11, 12), (21, 22)


@dataclass
class Typed:
    """A project with a view of each group of value types, filled in every way."""

    project: ConformanceProject
    provider: str
    online: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    offline: dict[str, pa.Table] = field(default_factory=dict)

    def fill(self) -> None:
        self.project.apply(*[self._view(group) for group in GROUPS])
        self.project.store.materialize(ago(days=1), ago())
        for group in GROUPS:
            self.project.store.push(f"{group}_push", self._frame(group, PUSHED))
            asyncio.run(self.project.store.push_async(f"{group}_push", self._frame(group, AWAITED)))
            refs = [f"{group}:{plain_name(name)}" for name in GROUPS[group]]
            self.online[group] = self.project.online(refs, users_of(1, 2, 3, 4, *PUSHED, *AWAITED))
            self.offline[group] = self.project.offline(refs, asked(2, 3, 1, 4))

    def read(self, name: str, places: slice) -> list[Any]:
        return self.online[GROUP_OF[name]][plain_name(name)][places]

    def _view(self, group: str) -> Any:  # noqa: ANN401 - Feast's
        kinds = {plain_name(name): VALUE_TYPES[name] for name in GROUPS[group]}
        columns = {name: pa.array([*kind.values, None], kind.arrow) for name, kind in kinds.items()}
        self.project.write(f"{group}.parquet", table_of([1, 2, 3], **columns))
        return self.project.pushed(group, {name: kind.feast for name, kind in kinds.items()})

    def _frame(self, group: str, ids: tuple[int, int]) -> pd.DataFrame:
        times = {"user_id": list(ids), "event_time": [ago(hours=1)] * 2, "created": [ago(hours=1)] * 2}
        frame = pd.DataFrame(times)
        for name in GROUPS[group]:
            kind = VALUE_TYPES[name]
            left_out = name in NEVER_PUSHED[self.provider]
            values = [None, None] if left_out else [kind.pushed(value) for value in kind.values]
            frame[plain_name(name)] = pd.Series(values, dtype=object if pa.types.is_nested(kind.arrow) else None)
        return frame


@pytest.fixture(scope="module", params=["skewless", pytest.param("local", marks=pytest.mark.soak)])
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Node) -> Iterator[Typed]:
    """A filled project, with either provider."""
    filled = Typed(
        ConformanceProject(tmp_path_factory.mktemp("typed"), valkey.port, provider=request.param), request.param
    )
    filled.fill()
    yield filled
    tear_down(filled.project.store)


def expected(kind: ValueType, rows: list[Any]) -> list[Any]:
    return [None if value is None else kind.online(value) for value in rows]


@EACH
def test_a_source_is_materialised(typed: Typed, name: str) -> None:
    kind = VALUE_TYPES[name]
    assert typed.read(name, slice(4)) == expected(kind, [*kind.values, None, None])


@pytest.mark.parametrize("places", [slice(4, 6), slice(6, 8)], ids=["push", "push_async"])
@EACH
def test_a_frame_is_pushed(typed: Typed, name: str, places: slice) -> None:
    if name in NEVER_PUSHED[typed.provider]:
        pytest.xfail(BY_FEAST)
    kind = VALUE_TYPES[name]
    assert typed.read(name, places) == expected(kind, list(kind.values))


@EACH
def test_a_history_is_retrieved_and_is_as_online(typed: Typed, name: str) -> None:
    kind = VALUE_TYPES[name]
    found = typed.offline[GROUP_OF[name]][plain_name(name)].to_pylist()
    assert found == [kind.values[1], None, kind.values[0], None]
    assert expected(kind, [found[2], found[0], found[1]]) == typed.read(name, slice(3))
