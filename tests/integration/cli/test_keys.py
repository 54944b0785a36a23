"""``skewless keys``: made once, shown once, known to a server's access, revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import AccessError
from skewless.infra.platform.access.api_keys import KeyStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.access.gate import KeyAccess
from tests.worlds.command_line import done, fingerprint, run


def allowed(repo: Path, key: str, scope: None = None) -> str:
    access = KeyAccess(KeyStore(ProjectState(repo / ".skewless")), lambda: 1_800_000_000_000_000)
    return access.allow([(b"x-api-key", key.encode())], scope).name


def test_a_key_is_made_listed_used_and_revoked(new: Path) -> None:
    words = ("--scope", "as_of", "--scope", "predict", "--rate", "2.5", "--expires", "2999-01-01T00:00:00+01:00")
    made = done("keys", "add", "web", *words, "--repo", new)
    assert {name: made[name] for name in ("name", "scopes", "rate", "expires")} == {
        "name": "web",
        "scopes": ["predict", "as_of"],
        "rate": 2.5,
        "expires": "2998-12-31T23:00:00+00:00",
    }
    assert allowed(new, made["key"]) == "web"
    listed = run("keys", "list", "--repo", new, "--json")
    assert made["key"].removeprefix("sk_web_") not in listed.stdout
    expected = {name: value for name, value in made.items() if name != "key"}
    assert listed.body == {"keys": [{**expected, "valid": True}]}
    assert done("keys", "revoke", "web", "--repo", new) == {"name": "web", "revoked": True}
    assert done("keys", "list", "--repo", new) == {"keys": []}
    with pytest.raises(AccessError):
        allowed(new, made["key"])


def test_people_can_copy_the_key_from_a_line_of_its_own(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "a-name-of-forty-letters-is-the-longest-1"
    said = run("keys", "add", name, "--repo", new)
    key = said.stdout.splitlines()[-1]
    assert key.startswith(f"sk_{name}_")
    assert allowed(new, key) == name
    assert key not in run("keys", "list", "--repo", new).stdout + said.stderr


def test_a_key_can_be_for_some_models_or_a_certificate(new: Path) -> None:
    made = done("keys", "add", "team", "--model", "pricing", "--model", "fraud", "--repo", new)
    assert made["models"] == ["fraud", "pricing"]
    shown = run("keys", "add", "mesh", "--certificate", "dns:Web.Shop.example", "--repo", new)
    assert "the key, which cannot be shown again" not in shown.stdout
    listed = done("keys", "list", "--repo", new)["keys"]
    assert [(key["name"], key["models"], key["certificate"]) for key in listed] == [
        ("team", ["fraud", "pricing"], None),
        ("mesh", None, "dns:web.shop.example"),
    ]
    table = run("keys", "list", "--repo", new).stdout
    assert "pricing" in table
    assert "dns:web.shop.example" in table
    said = run("keys", "add", "mesh-2", "--certificate", "dns:WEB.shop.example", "--repo", new, "--json")
    assert (said.code, said.body["error"]["problem"]) == (9, "has the certificate of 'mesh'")
    done("keys", "revoke", "mesh", "--repo", new)
    assert done("keys", "add", "mesh-2", "--certificate", "dns:web.shop.example", "--repo", new)["name"] == "mesh-2"


def test_without_a_scope_a_key_may_predict_and_nothing_else(new: Path) -> None:
    assert done("keys", "add", "web", "--repo", new)["scopes"] == ["predict"]


def test_a_dry_run_makes_no_key_and_revokes_none(new: Path) -> None:
    before = fingerprint(new)
    said = done("keys", "add", "web", "--dry-run", "--repo", new)
    assert (said["dry_run"], said["name"], "key" in said) == (True, "web", False)
    assert fingerprint(new) == before
    done("keys", "add", "web", "--repo", new)
    before = fingerprint(new)
    assert done("keys", "revoke", "web", "--dry-run", "--repo", new)["dry_run"] is True
    assert run("keys", "add", "web", "--dry-run", "--repo", new).code == 9
    assert run("keys", "revoke", "shop", "--dry-run", "--repo", new).code == 6
    assert fingerprint(new) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["add", "Web"], 2, "an invalid name"),
        (["add", "shop", "--scope", "root"], 2, "unknown scope"),
        (["add", "shop", "--rate", "0"], 2, "invalid rate"),
        (["add", "shop", "--model", "../x"], 2, "invalid model"),
        (["add", "shop", "--certificate", "web.shop.example"], 2, "invalid certificate name"),
        (["add", "shop", "--expires", "2001-01-01"], 2, "expires before its creation"),
        (["add", "shop", "--expires", "soon"], 2, "is not a time"),
        (["add", "web"], 9, "exists"),
        (["revoke", "shop"], 6, "is unknown"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(new: Path, words: list[str], code: int, says: str) -> None:
    done("keys", "add", "web", "--repo", new)
    before = fingerprint(new)
    said = run("keys", *words, "--repo", new, "--json")
    assert (said.code, says in said.body["error"]["problem"]) == (code, True), said
    assert fingerprint(new) == before


@pytest.mark.parametrize(("words", "setting"), [(["--host", "0.0.0.0"], "host"), ([], "auth")])  # noqa: S104 - it must not
def test_where_keys_are_needed_a_server_does_not_start_without_one(
    walked: Path, words: list[str], setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "auth":
        monkeypatch.setenv("SKEWLESS_AUTH", "required")
    said = run("serve", *words, "--port", "0", "--repo", walked, "--json")
    assert (said.code, said.body["error"]["thing"]) == (2, f"setting {setting!r}")
    assert "skewless keys add" in said.body["error"]["fix"]
    assert not (walked / ".skewless/server.json").exists()
