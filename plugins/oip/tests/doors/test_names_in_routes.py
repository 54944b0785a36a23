"""No name in any route leads out of its place: an error of bounded size, nothing read, nothing written."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from plugins.oip.tests.doors.bodies import SentBody
from plugins.oip.tests.doors.test_bodies import JSON, SOAK_S, check
from skewless.contract.names import is_name
from tests.integration.serving.core.doors import Connection, Doors
from tests.worlds.command_line import fingerprint
from tests.worlds.hostile_text import NAMES, WRONG_NAMES
from tests.worlds.trained import MODEL, Sandbox

ROUTES = (
    "/models/{name}",
    "/models/{name}/check",
    "/models/{name}/rollback",
    "/v2/models/{name}",
    "/v2/models/{name}/config",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/ready",
    "/v2/models/{name}/stats",
    "/v2/models/{name}/versions",
    f"/v2/models/{MODEL}/versions/{{name}}",
    f"/v2/models/{MODEL}/versions/{{name}}/config",
    f"/v2/models/{MODEL}/versions/{{name}}/infer",
    f"/v2/models/{MODEL}/versions/{{name}}/ready",
    f"/v2/models/{MODEL}/versions/{{name}}/stats",
    "/v2/repository/models/{name}/load",
    "/v2/repository/models/{name}/unload",
    "/events/{name}",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
Spelling = Callable[[str], str]


def twice(name: str) -> str:
    return quote(quoted(name), safe="")


def quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")


def every_byte(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode(errors="surrogatepass"))


def with_slashes(name: str) -> str:
    return quote(name, safe="/", errors="surrogatepass")


def overlong(name: str) -> str:
    """Return slashes and points as no decoder of UTF-8 may read them."""
    return quoted(name).replace("%2F", "%c0%af").replace(".", "%c0%ae")


SPELLINGS: tuple[Spelling, ...] = (quoted, twice, every_byte, with_slashes, overlong)
ASKED = st.tuples(st.sampled_from(ROUTES), st.sampled_from(METHODS), st.sampled_from(SPELLINGS))


def test_the_routes_are_all_that_hold_a_name(doors: Doors) -> None:
    document = json.loads(doors.fast.ask("GET", "/openapi.json").body)
    held = {path for path in document["paths"] if "{" in path}
    assert {route.replace(MODEL, "{name}").replace("/versions/{name}", "/versions/{version}") for route in ROUTES} == {
        path.replace("{source}", "{name}") for path in held
    }


def ask(links: list[Connection], place: Sandbox, asked: tuple[str, str, Spelling], name: str) -> int:
    """Ask through both lanes; return the status."""
    route, method, spelled = asked
    path = route.format(name=spelled(name))
    replies = [link.ask(method, path, b"{}" if method in {"POST", "PUT"} else None, JSON) for link in links]
    for reply in replies:
        if method == "HEAD":
            assert reply.body == b""
        else:
            check(SentBody(path=path, body=b"{}"), reply)
        assert 400 <= reply.status < 500, (method, path, reply)
        assert str(place.repo).encode() not in reply.body
    assert len({reply.status for reply in replies}) == 1, (method, path, replies)
    return replies[0].status


@pytest.mark.parametrize("spellings", [1, pytest.param(len(SPELLINGS), marks=pytest.mark.soak)])
def test_names_that_are_none(links: list[Connection], shared: Sandbox, spellings: int) -> None:
    """In one spelling by turns: each name and each route has met each of them in the end."""
    before = fingerprint(shared.state)
    for i, route in enumerate(ROUTES):
        for j, name in enumerate((*NAMES, "x" * 5_000)):
            for spelled in islice(cycle(SPELLINGS), i + j, i + j + spellings):
                ask(links, shared, (route, "POST" if "load" in route or "infer" in route else "GET", spelled), name)
    assert fingerprint(shared.state) == before


@settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
@given(asked=ASKED, name=WRONG_NAMES | st.text(max_size=20).filter(lambda name: not is_name(name)))
def test_any_text_that_is_no_name(
    links: list[Connection], shared: Sandbox, asked: tuple[str, str, Spelling], name: str
) -> None:
    ask(links, shared, asked, name)


@pytest.mark.soak
def test_ten_minutes_of_names(links: list[Connection], shared: Sandbox, tell: Callable[[str], None]) -> None:
    counts, end, before = Counter[tuple[str, int]](), time.monotonic() + SOAK_S, fingerprint(shared.state)

    @settings(
        deadline=None, database=None, max_examples=500, suppress_health_check=list(HealthCheck), derandomize=False
    )
    @given(asked=ASKED, name=WRONG_NAMES | st.text(max_size=40).filter(lambda name: not is_name(name)))
    def some(asked: tuple[str, str, Spelling], name: str) -> None:
        counts[asked[0], ask(links, shared, asked, name)] += 1

    while time.monotonic() < end:
        some()
    for (route, status), n in sorted(counts.items()):
        tell(f"{route} {status}: {n}")
    tell(f"{counts.total()} requests through each lane, all refused with 4xx")
    assert {route for route, _ in counts} == set(ROUTES)
    assert fingerprint(shared.state) == before
