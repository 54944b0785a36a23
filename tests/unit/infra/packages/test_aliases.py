"""An alias moves by compare-and-set and keeps its history."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError, StoreError
from skewless.infra.packages.aliases import Aliases, AliasMove
from skewless.infra.packages.package import PackageContents
from skewless.infra.packages.writer import write_package
from tests.worlds.packages import store_at


@pytest.fixture
def root(tmp_path: Path, contents: PackageContents) -> Path:
    for _ in range(3):
        write_package(store_at(tmp_path), "late", contents)
    return tmp_path


def test_an_alias_that_never_moved_is_held_by_nobody(root: Path) -> None:
    aliases = Aliases(root)
    assert aliases.get("late", "champion") is None
    assert aliases.history("late", "champion") == []
    assert aliases.names("late") == []
    assert aliases.get("unknown", "champion") is None
    assert aliases.names("unknown") == []


def test_moves_are_kept_in_order(root: Path) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="first", now_us=1)
    aliases.move("late", "champion", expect="000001", to="000002", reason="better", now_us=2)
    aliases.move("late", "champion", expect="000002", to="000001", reason="rolled back: \u00fc", now_us=3)
    assert Aliases(root).get("late", "champion") == "000001"
    assert Aliases(root).history("late", "champion") == [
        AliasMove(number=1, expect=None, to="000001", reason="first", at_us=1),
        AliasMove(number=2, expect="000001", to="000002", reason="better", at_us=2),
        AliasMove(number=3, expect="000002", to="000001", reason="rolled back: \u00fc", at_us=3),
    ]


@pytest.mark.parametrize(
    ("holders", "before"),
    [
        ("1", None),
        ("12", "1"),
        ("121", None),
        ("123", "2"),
        ("1232", "1"),
        ("12321", None),
        ("1231", "3"),
        ("12313", "2"),
        ("123132", "1"),
    ],
)
def test_a_move_one_step_back_undoes_a_step_and_every_other_one_adds_one(
    root: Path, holders: str, before: str | None
) -> None:
    aliases = Aliases(root)
    assert aliases.previous("late", "champion") is None
    versions = [f"00000{digit}" for digit in holders]
    for expect, to in zip([None, *versions], versions, strict=False):
        aliases.move("late", "champion", expect=expect, to=to, reason="", now_us=1)
    assert aliases.previous("late", "champion") == (None if before is None else f"00000{before}")


def test_aliases_do_not_disturb_each_other(root: Path) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    aliases.move("late", "challenger", expect=None, to="000002", reason="", now_us=1)
    assert (aliases.get("late", "champion"), aliases.get("late", "challenger")) == ("000001", "000002")
    assert aliases.names("late") == ["challenger", "champion"]


@pytest.mark.parametrize("expect", [None, "000002"])
def test_a_move_from_another_version_names_who_holds_it(root: Path, expect: str | None) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    with pytest.raises(ConflictError, match="held by version '000001'"):
        aliases.move("late", "champion", expect=expect, to="000003", reason="", now_us=2)
    assert aliases.get("late", "champion") == "000001"
    assert len(aliases.history("late", "champion")) == 1


def test_a_move_that_expects_a_holder_where_there_is_none(root: Path) -> None:
    with pytest.raises(ConflictError, match="held by no version, not by '000001'"):
        Aliases(root).move("late", "champion", expect="000001", to="000002", reason="", now_us=1)


def test_a_version_that_does_not_exist_gets_no_alias(root: Path) -> None:
    with pytest.raises(PackageError, match="no such version"):
        Aliases(root).move("late", "champion", expect=None, to="000009", reason="", now_us=1)
    assert Aliases(root).get("late", "champion") is None


def test_an_alias_name_that_leaves_the_folder_is_refused(root: Path) -> None:
    with pytest.raises(PackageError, match="has an invalid name"):
        Aliases(root).get("late", "../champion")


def test_the_leftover_of_a_killed_move_is_ignored_and_swept(root: Path) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    leftover = root / "late" / "aliases" / "champion" / ".move-killed"
    leftover.write_text('{"num')
    assert aliases.get("late", "champion") == "000001"
    aliases.move("late", "champion", expect="000001", to="000002", reason="", now_us=2)
    assert not leftover.exists()
    assert len(aliases.history("late", "champion")) == 2


def test_a_kill_between_link_and_unlink_has_moved(root: Path) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    folder = root / "late" / "aliases" / "champion"
    os.link(folder / "000001.json", folder / ".move-killed")
    assert aliases.get("late", "champion") == "000001"
    assert len(aliases.history("late", "champion")) == 1


def test_a_name_taken_at_the_last_moment_is_a_conflict(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = Aliases(root)
    real_link = os.link

    def raced(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real_link)
        target.write_text('{"at_us": 5, "expect": null, "number": 1, "reason": "faster", "to": "000003"}')
        real_link(source, target)

    monkeypatch.setattr(os, "link", raced)
    with pytest.raises(ConflictError, match="held by version '000003'"):
        aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    assert [move.reason for move in aliases.history("late", "champion")] == ["faster"]


def test_a_full_disk_moves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        aliases.move("late", "champion", expect="000001", to="000002", reason="", now_us=2)
    assert aliases.get("late", "champion") == "000001"


def test_an_entry_that_is_no_move_is_named(root: Path) -> None:
    aliases = Aliases(root)
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    (root / "late" / "aliases" / "champion" / "000001.json").write_text("{}")
    with pytest.raises(PackageError, match=r"champion/000001\.json"):
        aliases.get("late", "champion")
