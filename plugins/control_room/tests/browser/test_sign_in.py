"""People sign in with a key or at a provider; what they may do; sessions end with their keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from plugins.control_room.tests.browser.room import running_room
from skewless.contract.errors import DefinitionError
from skewless.project import Project
from skewless_control_room.server import run_control_room
from tests.browser.visitor import Visitor, accessibility_problems
from tests.servers.identity_provider import Provider, opened_provider
from tests.worlds.command_line import done
from tests.worlds.ports import free_ports
from tests.worlds.waiting import eventually


@pytest.fixture
def guarded_project(fraud_project: Path, tmp_path: Path) -> Path:
    """A copy of the sample project, whose keys the test may change."""
    repo = tmp_path / "guarded"
    shutil.copytree(fraud_project, repo, ignore=shutil.ignore_patterns("redis"))
    return repo


@dataclass(frozen=True, kw_only=True)
class GuardedRoom:
    """A control room that needs a key, its project, and a key with each right and one for predictions only."""

    url: str
    repo: Path
    keys: dict[str, str]


@pytest.fixture(scope="module")
def guarded_room(fraud_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRoom]:
    """Its tests revoke only keys that no other has."""
    repo = tmp_path_factory.mktemp("guarded") / "guarded"
    shutil.copytree(fraud_project, repo, ignore=shutil.ignore_patterns("redis"))
    scopes = {"vera": "view", "eva": "view", "olga": "operate", "ada": "admin", "shop": "predict"}
    keys = {name: done("keys", "add", name, "--scope", scope, "--repo", repo)["key"] for name, scope in scopes.items()}
    with running_room(repo, SKEWLESS_AUTH="required") as url:
        yield GuardedRoom(url=url, repo=repo, keys=keys)


def _status(url: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urlopen(Request(url, headers=headers)) as reply:  # noqa: S310 - our server
            return int(reply.status) if reply.url == url else 303
    except HTTPError as error:
        return error.code


def test_a_room_that_others_can_reach_needs_a_key(guarded_project: Path) -> None:
    with (
        Project(guarded_project, ui_host="0.0.0.0") as project,  # noqa: S104
        pytest.raises(DefinitionError, match="no key is valid"),
    ):
        run_control_room(project, port=0)


def test_a_person_signs_in_with_a_key_until_it_is_revoked(visitor: Visitor, guarded_room: GuardedRoom) -> None:
    url, keys = guarded_room.url, guarded_room.keys
    with visitor.visit(f"{url}/changes") as page:
        assert page.get_by_role("heading", level=1).inner_text() == "Sign in"
        assert not accessibility_problems(page)
        page.get_by_label("API key").fill("sk_eva_wrong")
        page.get_by_role("button", name="Sign in").click()
        assert "is unknown" in page.get_by_role("alert").inner_text()
        page.goto(f"{url}/sign-in?to=/changes")
        page.get_by_label("API key").fill(keys["eva"])
        page.get_by_role("button", name="Sign in").click()
        assert page.url == f"{url}/changes"
        assert "eva (view)" in page.get_by_role("banner").inner_text()
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"]
        assert keys["eva"] not in cookie["value"]
        done("keys", "revoke", "eva", "--repo", guarded_room.repo)

        def is_out() -> bool:
            page.goto(f"{url}/changes")
            return page.get_by_role("heading", level=1).inner_text() == "Sign in"

        eventually(is_out)


def test_rights_are_kept(visitor: Visitor, guarded_room: GuardedRoom) -> None:
    url, keys = guarded_room.url, guarded_room.keys
    expected = {"vera": 200, "olga": 200, "ada": 200, "shop": 403, "": 303}
    assert {name: _status(f"{url}/changes.json", keys.get(name, "")) for name in expected} == expected
    assert _status(f"{url}/changes.json", "sk_vera_" + "x" * 43) == 401
    with visitor.visit(f"{url}/sign-in?to=https://evil.example") as page:
        page.get_by_label("API key").fill(keys["olga"])
        page.get_by_role("button", name="Sign in").click()
        assert page.url == f"{url}/"
        page.get_by_role("button", name="Sign out").click()
        page.goto(f"{url}/changes")
        assert page.get_by_role("heading", level=1).inner_text() == "Sign in"


@pytest.fixture
def identity_provider(tmp_path: Path) -> Iterator[Provider]:
    """A provider at which people sign in."""
    with opened_provider(tmp_path) as provider:
        yield provider


def test_a_person_signs_in_at_the_provider(
    visitor: Visitor, guarded_project: Path, identity_provider: Provider, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    settings = {
        "SKEWLESS_AUTH": "required",
        "SKEWLESS_TOKEN_ISSUERS": json.dumps([identity_provider.url]),
        "SKEWLESS_UI_CLIENT_ID": "control-room",
        "SKEWLESS_UI_URL": f"http://localhost:{port}",
        "SSL_CERT_FILE": str(tmp_path / "ca.crt"),
    }
    with running_room(guarded_project, port=port, **settings):
        url = f"http://localhost:{port}"
        with visitor.visit(f"{url}/changes", other_hosts=True) as page:
            page.get_by_role("link", name="Sign in with the identity provider").click()
            page.wait_for_url(f"{url}/changes")
            assert "ada (operate)" in page.get_by_role("banner").inner_text()
        with visitor.visit(f"{url}/sign-in/callback?code=code-0&state=guessed") as page:
            assert "does not belong to an attempt" in page.inner_text("main")
