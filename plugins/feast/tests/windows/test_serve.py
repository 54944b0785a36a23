"""`feast serve` on a project with windows: pushes become events, reads are computed."""

from __future__ import annotations

import asyncio

import pandas as pd

from plugins.feast.tests.online.test_serve import READ, post
from tests.worlds.windowed_feast import WINDOWED, WindowedFeastProject, columns, some


def test_feasts_server_pushes_and_reads(windowed: WindowedFeastProject) -> None:
    rows = some(6, windowed.now_us())
    body = {"push_source_name": "landings", "df": columns(rows), "to": "online"}
    status, _ = asyncio.run(post(windowed.store, "/push", body))
    assert status == 200
    windowed.work(6)
    asked = {"features": WINDOWED, "entities": {"carrier": ["AA", "ZZ"]}}
    status, answer = asyncio.run(post(windowed.store, READ, asked))
    assert status == 200
    names = answer["metadata"]["feature_names"]
    values = dict(zip(names, (result["values"] for result in answer["results"]), strict=True))
    statuses = dict(zip(names, (result["statuses"] for result in answer["results"]), strict=True))
    assert values["landings_1h"] == [3.0, 0.0]
    assert statuses["mean_delay_1h"] == ["PRESENT", "NULL_VALUE"]


def test_reads_may_be_awaited(windowed: WindowedFeastProject) -> None:
    windowed.store.push("landings", pd.DataFrame(some(6, windowed.now_us())))
    windowed.work(6)
    entities = [{"carrier": "AA"}]
    awaited = asyncio.run(windowed.store.get_online_features_async(WINDOWED, entities))
    assert awaited.to_dict() == windowed.store.get_online_features(WINDOWED, entities).to_dict()
