"""Any value in the store may be overwritten with garbage: nothing wrong is served, nothing fails, all is repaired.

A repair is what the errors say: whoever does it, and nothing else, has a sound store again.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from skewless.infra.reads.online.private_server import PrivateServer
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import run
from tests.worlds.waiting import eventually
from tests.worlds.windowed import CARRIERS, trained_repo

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 200))]
VERBS = (
    ("parity",),
    ("status",),
    ("doctor",),
    ("get", "carrier_now", "--key", "carrier=AA"),
    ("predict", "late", "--row", '{"carrier": "AA"}'),
    ("freshness",),
    ("replay",),
    ("backfill", "--dry-run"),
    ("materialize", "--no-check"),
)
# Done, or refused or found something with a code of docs/errors.md; `doctor` found something: 1.
CODES = {0, 1, 3, 5, 7}
Damage = Callable[[random.Random, bytes], bytes]


def flipped(luck: random.Random, value: bytes) -> bytes:
    """Flip one bit, if there is one."""
    if not value:
        return b"\0"
    at = luck.randrange(len(value) * 8)
    whole = bytearray(value)
    whole[at // 8] ^= 1 << at % 8
    return bytes(whole)


DAMAGES: tuple[Damage, ...] = (
    flipped,
    lambda luck, value: luck.randbytes(len(value)),
    lambda luck, value: value[: luck.randrange(len(value) + 1)],
    lambda luck, value: value + luck.randbytes(luck.randrange(1, 40)),
    lambda luck, _: luck.randbytes(luck.randrange(300)),
    lambda *_: b"",
    lambda *_: b"nonsense",
    lambda *_: b"\xff\xfe\x00",
    lambda *_: b"-5 -5",
    lambda *_: b"9" * 40 + b" 1",
    lambda *_: b"7",
    lambda *_: b"7 x",
    lambda *_: b'{"generation": "x", "partitions": 7}',
    lambda *_: b'{"generation": 99, "partitions": ["../../x"]}',
    lambda *_: b"[" * 2_000,
    lambda luck, _: struct.pack("<Q", luck.getrandbits(64)) * 1_000,
)


@dataclass(frozen=True)
class SpoiledProject:
    """A served project."""

    repo: Path
    server: PredictionServer
    store: redis.Redis

    def seen(self) -> list[dict[str, Any]]:
        """Return the features and views of every carrier as they are served."""
        body = json.dumps({"rows": [{"carrier": name} for name in CARRIERS], "features": True})
        status, reply = self.server.post("/predict", body)
        assert status == 200, reply
        return [{"features": item["features"], "views": item["views"]} for item in reply["predictions"]]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpoiledProject]:
    repo = trained_repo(tmp_path_factory.mktemp("garbage") / "p", "port: 0\nreload_seconds: 0.1\n")
    private = PrivateServer(repo / ".skewless")
    url = private.status().url
    assert url is not None
    server = PredictionServer.start(repo)
    with redis.Redis.from_url(url) as store:
        yield SpoiledProject(repo, server, store)
    server.stop()
    private.stop()


def mend(spoiled: SpoiledProject) -> None:
    """Repair the store; if a command fails, do what its error says."""
    todo = [["materialize", "--no-check"], ["backfill", "carrier_now"], ["parity", "--repair"], ["parity"]]
    for _ in range(12):
        said = run(*todo[0], "--repo", spoiled.repo, "--json")
        fix = re.search("`skewless (.+?)`", said.body["error"]["fix"]) if "error" in said.body else None
        if fix is not None:
            todo.insert(0, shlex.split(fix[1]))
            continue
        if len(todo) == 1:
            assert said.code == 0, said
            return
        del todo[0]
    raise AssertionError(f"the fixes lead nowhere: {said}")


def views_of(seen: dict[str, Any]) -> dict[str, str]:
    return {name: view["status"] for name, view in seen["views"].items()}


def fleet_of(seen: dict[str, Any]) -> object:
    """Return the feature that does not move with the time."""
    return seen["features"]["facts__fleet"]


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_is_never_served_and_is_repaired(spoiled: SpoiledProject, seed: int) -> None:
    luck = random.Random(seed)
    truth = spoiled.seen()
    assert {status for item in truth for status in views_of(item).values()} == {"PRESENT"}
    keys: list[bytes] = sorted(spoiled.store.keys("sk:*"))  # type: ignore[arg-type]  # the client's types are of both kinds
    keys = [key for key in keys if not key.startswith(b"sk:air:events:")]  # messages are not states
    for key in luck.sample(keys, luck.choice([1, 1, 2, 5])):
        value = spoiled.store.get(key)
        assert isinstance(value, bytes)
        spoiled.store.set(key, luck.choice(DAMAGES)(luck, value))
    for before, item in zip(truth, spoiled.seen(), strict=True):
        statuses = views_of(item)
        for name, value in item["features"].items():
            view = name.partition("__")[0]
            assert value == before["features"][name] if statuses[view] == "PRESENT" else value is None, (name, item)
        assert set(statuses.values()) <= {"PRESENT", "UNAVAILABLE"}, statuses
    for words in luck.sample(VERBS, len(VERBS)):
        said = run(*words, "--repo", spoiled.repo, "--json")
        assert said.code in CODES, (words, said)
    mend(spoiled)
    repaired = eventually(spoiled.seen, lambda seen: all(set(views_of(item).values()) == {"PRESENT"} for item in seen))
    assert [fleet_of(item) for item in repaired] == [fleet_of(item) for item in truth]  # of the windows parity tells


@pytest.mark.parametrize("position", [b"3", pytest.param(b"9" * 15 + b" 1768478400000000", marks=pytest.mark.soak)])
def test_a_marker_of_a_position_that_the_log_does_not_have_is_found_and_mended(
    spoiled: SpoiledProject, position: bytes
) -> None:
    truth = [fleet_of(item) for item in spoiled.seen()]
    (marker,) = spoiled.store.keys("sk:air:*:applied")  # type: ignore[misc]  # the client's types are of both kinds
    spoiled.store.set(marker, position)
    row = marker.replace(b"applied", b"{carrier|%s}")
    spoiled.store.copy(str(row % b"AA", "ascii"), str(row % b"XX", "ascii"))  # an entity that the log does not know
    assert [fleet_of(item) for item in spoiled.seen()] == truth  # and the server remembers the position
    said = run("parity", "--repo", spoiled.repo, "--json")
    facts = said.body["views"]["facts"]
    assert (said.code, facts["by_cause"]) == (5, {"ahead": facts["compared"]}), said
    assert f"the log ends at 2, the store's marker is at {int(position.split()[0])}" in said.stdout
    mend(spoiled)
    eventually(spoiled.seen, lambda seen: [fleet_of(item) for item in seen] == truth)
    assert (spoiled.store.exists(row % b"AA"), spoiled.store.exists(row % b"XX")) == (1, 0)
