"""SEMANTICS 9.7, 9.9: traffic policies hold for decisions, and a row that changes decides its entity."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.decisions.tests.deciding import ALL, MODEL, SECOND, DecidingWorld
from skewless.contract.decisions import Changes
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.policy import Policy
from skewless.contract.policy_runner import compile_policy
from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.infra.definitions.compiler.services import module_source
from skewless.infra.models.rollout.counts import read_counts
from skewless.infra.models.rollout.entity_lists import EntityLists
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.latest import LatestRedisWorld, times
from tests.worlds.payment_policy import act_on_list
from tests.worlds.plans import columns, make_view, refs
from tests.worlds.streams import Traffic, drain

VIEW = make_view("v", path="v.parquet")


def work(deciding: DecidingWorld, broker: MemoryBroker) -> None:
    with deciding.store() as store, deciding.deciding(store) as decider:
        worker = deciding.worker(store, lambda owner: MemoryStream(broker, owner))
        worker.set_decider(decider)
        drain(worker, more=lambda: any(counts.lag != 0 for counts in decider.counts))
        worker.close()
        decider.close()


def test_9_9_an_entity_stays_with_one_version_and_shadows_score_the_same_rows(tmp_path: Path, server_url: str) -> None:
    deciding = DecidingWorld(root=tmp_path / f"p{uuid.uuid4().hex[:6]}", url=server_url)
    versions = [deciding.publish() for _ in range(3)]
    champion, challenger, shadow = versions[2], versions[0], versions[1]
    deciding.ensure()
    policy = TrafficPolicy(
        number=1, phase="ab", champion=champion, challenger=challenger, share=0.5, shadows=(shadow,), salt="s"
    )
    deciding.packages.traffic.replace(MODEL, policy, expect=None)
    broker, traffic = MemoryBroker(1), Traffic(11)
    deciding.clock.set(deciding.clock.now_us() + 7 * SECOND)
    for _, message in traffic.make(60, deciding.clock.now_us()):
        broker.append(0, message)
    work(deciding, broker)
    decided = deciding.check_decisions()
    rows = deciding.log_rows()
    inputs = [(row, json_keys(row)) for row in rows]
    assert {row["role"] for row in rows} == {"champion", "challenger"}
    for row, entity in inputs:
        expected = challenger if entity_position("s", [entity]) < 0.5 else champion
        assert (row["version"], row["policy"]) == (expected, 1)
    shadows = deciding.shadow_rows()
    assert {row["version"] for row in shadows} == {shadow}
    assert {row["id"] for row in shadows} == {row["id"] for row in rows}
    assert len(shadows) == decided
    counts = read_counts(deciding.state, MODEL, 1)
    assert sum(each.rows for version, each in counts.items() if version != shadow) == decided


def json_keys(row: dict[str, Any]) -> int:
    return int(json.loads(row["inputs"])["id"])


def test_11_a_running_worker_decides_by_each_new_version_of_a_list(
    tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless_decisions.models._REFRESH_S", 0.0)
    deciding = DecidingWorld(root=tmp_path / f"p{uuid.uuid4().hex[:6]}", url=server_url)
    policy = Policy(function=act_on_list, actions=("approve", "decline"), lists={"stolen": "id"})
    deciding.policy = compile_policy(f"model {MODEL!r}", policy, deciding.plan, "svc", module_source)
    deciding.publish()
    deciding.ensure()
    broker, traffic, n = MemoryBroker(1), Traffic(12), 0
    with deciding.store() as store, deciding.deciding(store) as decider:
        worker = deciding.worker(store, lambda owner: MemoryStream(broker, owner))
        worker.set_decider(decider)
        for number, stolen in enumerate((set(), {1, 3, 5}, {3, 9})):
            if stolen:
                lists = EntityLists(deciding.state.database)
                lists.write("stolen", map(str, stolen), reason="test", now_us=deciding.clock.now_us())
            deciding.clock.set(deciding.clock.now_us() + 7 * SECOND)
            for _, message in traffic.make(40, deciding.clock.now_us()):
                broker.append(0, message)
            drain(worker, more=lambda: any(counts.lag != 0 for counts in decider.counts))
            rows = deciding.log_rows()[n:]
            n += len(rows)
            assert {row["action"] for row in rows} == ({"approve", "decline"} if stolen else {"approve"})
            for row in rows:
                assert row["action"] == ("decline" if json_keys(row) in stolen else "approve")
                assert json.loads(row["lists"] or "{}") == ({"stolen": number} if stolen else {})
        worker.close()
        decider.close()
    assert deciding.check_decisions() == n


class RowWorld(DecidingWorld):
    """The same with a latest-value view instead of windows, whose rows decide their entities."""

    @property
    def plan(self) -> FeaturePlan:
        return FeaturePlan(
            project=self.root.name,
            views=(VIEW,),
            request=columns({"x": VIEW.feature("x").dtype}),
            transforms=(),
            services=(Service(name="svc", features=refs("v.x", "request.x")),),
            windows=(),
            sources=(),
        )


def test_9_7_a_changed_row_decides_its_entity_once(tmp_path: Path, server_url: str) -> None:
    root = tmp_path / f"p{uuid.uuid4().hex[:6]}"
    rows = LatestRedisWorld(root=root, url=server_url)
    deciding = RowWorld(root=root, url=server_url, clock=rows.clock, views=(), state_folder="state")
    changed = replace(ALL, source=None, when=Changes(view="v"))
    deciding.decisions = (changed,)
    deciding.publish()
    publish(rows, {1: 1.0, 2: 2.0, 3: 3.0})
    with deciding.deciders() as deciders:
        deciders.step()
        assert not deciding.log_rows(), "the first load decides nothing"
        publish(rows, {2: 20.0, 3: 30.0})
        publish(rows, {3: 33.0})
        deciders.step()
    with deciding.deciders() as deciders:
        deciders.step()
        publish(rows, {4: 4.0, 1: None})
        deciders.step()
        assert [counts.decided for counts in deciders.counts] == [2]
    found = {json_keys(row): row["vector"] for row in deciding.log_rows()}
    nothing = [math.nan, math.nan]
    assert sorted((key, repr(vector)) for key, vector in found.items()) == [
        (key, repr(vector)) for key, vector in enumerate((nothing, [20.0] * 2, [33.0] * 2, [4.0] * 2), start=1)
    ]
    assert all(row["score"] == deciding.score([row["vector"]])[0] for row in deciding.log_rows())
    report = deciding.replay()
    assert report.ok, report.lines()
    assert {gap.rows for gap in report.training.values()} == {report.compared} == {4}
    assert report.compared == len(deciding.log_rows()) == 4


def publish(rows: LatestRedisWorld, values: dict[int, float | None]) -> None:
    """Add a row of each entity to the source of the view, and materialize it."""
    rows.clock.set(rows.clock.now_us() + 10 * SECOND)
    now = times(*[rows.clock.now_us() - SECOND] * len(values))
    table = pa.table(
        {"id": pa.array(values, pa.int64()), "x": pa.array(values.values(), pa.float64()), "event": now, "created": now}
    )
    path = rows.root / "v.parquet"
    rows.write("v.parquet", pa.concat_tables([pq.read_table(path), table]) if path.exists() else table)
    assert rows.accepted(VIEW) == [len(values)]
