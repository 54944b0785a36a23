"""The champion moves 200 times while the server is asked: nobody is lost, and nobody gets a version out of its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, pairwise
from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.models.packages.store import Aliases, PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from tests.nightly.reliability.open_load import OpenLoad, TimedReply, load, quantile_ms, statuses
from tests.nightly.worlds.served import LENIENT, ServedProject, make_served, opened, predictions, said, served
from tests.servers.node import Node, running
from tests.servers.programs import program

pytestmark = pytest.mark.soak
RATE, MOVES, ROLLBACKS = 300.0, 200, 50
LOOK_S, GAP_S = 0.05, 0.1
LATE_S = 0.5  # from a move to the last reply of the old version: a look, a load, and requests in progress


@contextmanager
def world(tmp_path: Path) -> Iterator[tuple[ServedProject, list[str]]]:
    """Serve a model of two versions that score alike."""
    with running(Node(program("valkey"), tmp_path / "store")) as node:
        repo = make_served(tmp_path / "p", node.url)
        with opened(repo, node.url) as project:
            project.train(LENIENT)
        with served(repo, node.url, SKEWLESS_RELOAD_SECONDS=str(LOOK_S)) as server:
            server.until_calm()
            yield server, ["000001", "000002"]


def champions(repo: Path) -> Aliases:
    return PackageStore.of(ProjectState(repo / ".skewless"), Settings()).aliases


@contextmanager
def asked(server: ServedProject) -> Iterator[OpenLoad]:
    with load(server.url, predictions([LENIENT]), rate=RATE) as sender:
        time.sleep(1)
        yield sender
        time.sleep(1)


def check(sender: OpenLoad, moves: Sequence[tuple[float, str]]) -> None:
    """Every reply is from a version that was champion during its request, or shortly before."""
    assert (sender.hung, set(statuses(sender.replies))) == (0, {200}), statuses(sender.replies)
    spans = [(begun, ended, version) for (begun, version), (ended, _) in pairwise([*moves, (float("inf"), "")])]
    for reply in sender.replies:
        version = said(reply)["version"]
        allowed = {v for begun, ended, v in spans if begun <= reply.ended and reply.due - LATE_S <= ended}
        assert version in allowed, (reply.due, version, allowed)


def shares(replies: Sequence[TimedReply]) -> str:
    versions = [str(said(reply)["version"]) for reply in replies]
    changes = sum(before != after for before, after in pairwise(versions))
    return (
        f"{len(replies)} replies, {changes} changes of version seen, p50 {quantile_ms(replies, 0.5):.1f} ms, "
        f"p99 {quantile_ms(replies, 0.99):.1f} ms, longest {quantile_ms(replies, 1.0):.1f} ms"
    )


def test_the_alias_moves(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as (server, versions):
        aliases = champions(server.repo)
        holder = aliases.get(LENIENT, "champion")
        assert holder in versions
        moves = [(0.0, holder)]
        others = cycle([*(v for v in versions if v != holder), holder])
        with asked(server) as sender:
            for version in (next(others) for _ in range(MOVES)):
                now = time.perf_counter()
                aliases.move(LENIENT, "champion", expect=holder, to=version, reason="to and fro", now_us=len(moves))
                moves.append((now, version))
                holder = version
                time.sleep(GAP_S)
        tell(shares(sender.replies))
        check(sender, moves)
        assert server.metric("skewless_model_reloads_total") > MOVES / 4
        assert server.prove() == len(sender.replies) + 2


def test_it_is_rolled_back_over_http(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with world(tmp_path) as (server, versions):
        aliases = champions(server.repo)
        first = str(aliases.get(LENIENT, "champion"))
        (other,) = set(versions) - {first}
        if len(aliases.history(LENIENT, "champion")) == 1:
            aliases.move(LENIENT, "champion", expect=first, to=other, reason="a past to go back to", now_us=1)
            first = other
            server.server.ask("POST", "/models/refresh")
        moves = [(0.0, first)]
        with asked(server) as sender:
            for _ in range(ROLLBACKS):
                now = time.perf_counter()
                status, _, text = server.server.ask("POST", f"/models/{LENIENT}/rollback")
                assert status == 200, text
                moves.append((now, str(aliases.get(LENIENT, "champion"))))
                time.sleep(GAP_S)
        tell(shares(sender.replies))
        assert all(before != after for (_, before), (_, after) in pairwise(moves))
        check(sender, moves)
        assert server.prove() >= len(sender.replies)
