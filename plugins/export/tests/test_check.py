"""The check of each run of `make test`: a model as a table is exported, certified, and found altered."""

from __future__ import annotations

from pathlib import Path

from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox


def test_an_export_is_certified_until_a_file_of_it_is_altered(place: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("export", MODEL, "--to", "table", "--out", folder, "--repo", place.repo).code == 0
    assert run("certify", folder, "--repo", place.repo).code == 0
    (folder / "fraud.parquet").write_bytes(b"altered")
    refused = run("certify", folder, "--repo", place.repo)
    assert refused.code == 8
    assert "has an altered file" in refused.stderr
