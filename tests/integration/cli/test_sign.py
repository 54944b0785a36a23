"""``skewless sign --remove-key``: the packages of a removed key are rejected, and nobody can trust it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import DefinitionError, PackageError, RequestError
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.signing import key_removals
from skewless.project import Project
from tests.worlds.command_line import done, fingerprint, run


def test_a_removed_key_is_not_trusted_again(unasked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = done("sign", "--repo", unasked)["key"]
    before = fingerprint(unasked / ".skewless")
    dry = done("sign", "--remove-key", key, "--dry-run", "--repo", unasked)
    assert (dry["dry_run"], dry["removed"], dry["refused"]) == (
        True,
        key,
        {"fraud 000001": "this key has signed it"},
    )
    assert "nothing was changed" in run("sign", "--remove-key", key, "--dry-run", "--repo", unasked).stdout
    assert fingerprint(unasked / ".skewless") == before

    monkeypatch.setenv("SKEWLESS_TRUSTED_KEYS", f'["{key}"]')
    assert run("sign", "--remove-key", key, "--repo", unasked).code == DefinitionError.exit_code
    monkeypatch.delenv("SKEWLESS_TRUSTED_KEYS")
    for words in (["--remove-key", f"{key}x"], ["fraud", "--remove-key", key]):
        assert run("sign", *words, "--repo", unasked).code == RequestError.exit_code
    assert fingerprint(unasked / ".skewless") == before

    said = run("sign", "--remove-key", key, "--repo", unasked)
    assert said.stdout.splitlines() == [
        f"removed: {key}",
        "fraud 000001: cannot be loaded any more: this key has signed it",
    ]
    with Project(unasked) as project:
        with pytest.raises(PackageError, match="not trusted"):
            open_package(project.store, "fraud", "000001")
        number, removal = key_removals(project.state).latest(key) or (0, {})
        assert (number, removal["refused"], set(removal)) == (1, ["fraud 000001"], {"at_us", "host", "refused"})
        # The machine that has the key would otherwise trust it at its next training.
        with pytest.raises(DefinitionError, match=r"was removed from the trusted keys.*delete .*signing_key\.pem"):
            project.store.check_signer()
        (project.state / "signing_key.pem").unlink()
        assert project.store.check_signer() != key
