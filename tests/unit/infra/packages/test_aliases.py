"""An alias moves by compare-and-set and keeps its history."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, PackageError
from skewless.infra.models.packages.store import Aliases, AliasMove
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.package_folder import PackageFolder


@pytest.fixture
def aliases(tmp_path: Path, project_database: Database) -> Aliases:
    for version in ("000001", "000002", "000003"):
        (tmp_path / "late" / version).mkdir(parents=True)
    return Aliases(PackageFolder(tmp_path), project_database)


def test_an_alias_that_never_moved_is_held_by_nobody(aliases: Aliases) -> None:
    assert aliases.get("late", "champion") is None
    assert aliases.history("late", "champion") == []
    assert aliases.names("late") == []
    assert aliases.get("unknown", "champion") is None
    assert aliases.names("unknown") == []


def test_moves_are_kept_in_order(aliases: Aliases) -> None:
    aliases.move("late", "champion", expect=None, to="000001", reason="first", now_us=1)
    aliases.move("late", "champion", expect="000001", to="000002", reason="better", now_us=2)
    aliases.move("late", "champion", expect="000002", to="000001", reason="rolled back: \u00fc", now_us=3)
    assert aliases.get("late", "champion") == "000001"
    assert aliases.history("late", "champion") == [
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
    aliases: Aliases, holders: str, before: str | None
) -> None:
    assert aliases.previous("late", "champion") is None
    versions = [f"00000{digit}" for digit in holders]
    for expect, to in zip([None, *versions], versions, strict=False):
        aliases.move("late", "champion", expect=expect, to=to, reason="", now_us=1)
    assert aliases.previous("late", "champion") == (None if before is None else f"00000{before}")


def test_aliases_do_not_disturb_each_other(aliases: Aliases) -> None:
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    aliases.move("late", "challenger", expect=None, to="000002", reason="", now_us=1)
    assert (aliases.get("late", "champion"), aliases.get("late", "challenger")) == ("000001", "000002")
    assert aliases.names("late") == ["challenger", "champion"]


@pytest.mark.parametrize("expect", [None, "000002"])
def test_a_move_from_another_version_names_who_holds_it(aliases: Aliases, expect: str | None) -> None:
    aliases.move("late", "champion", expect=None, to="000001", reason="", now_us=1)
    with pytest.raises(ConflictError, match="held by version '000001'"):
        aliases.move("late", "champion", expect=expect, to="000003", reason="", now_us=2)
    assert aliases.get("late", "champion") == "000001"
    assert len(aliases.history("late", "champion")) == 1


def test_a_move_that_expects_a_holder_where_there_is_none(aliases: Aliases) -> None:
    with pytest.raises(ConflictError, match="held by no version, not by '000001'"):
        aliases.move("late", "champion", expect="000001", to="000002", reason="", now_us=1)


def test_a_version_that_does_not_exist_gets_no_alias(aliases: Aliases) -> None:
    with pytest.raises(PackageError, match="no such version"):
        aliases.move("late", "champion", expect=None, to="000009", reason="", now_us=1)
    assert aliases.get("late", "champion") is None


def test_an_alias_name_that_leaves_the_folder_is_refused(aliases: Aliases) -> None:
    with pytest.raises(PackageError, match="has an invalid name"):
        aliases.get("late", "../champion")


def test_a_move_by_another_thread_at_the_last_moment_waits_and_is_a_conflict(
    aliases: Aliases, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, others = Records.append, list[Future[AliasMove]]()

    def raced(self: Records, name: str, number: int, body: object) -> None:
        monkeypatch.setattr(Records, "append", real)
        others.append(pool.submit(aliases.move, "late", "champion", expect=None, to="000003", reason="", now_us=5))
        real(self, name, number, body)

    monkeypatch.setattr(Records, "append", raced)
    with ThreadPoolExecutor(1) as pool:
        aliases.move("late", "champion", expect=None, to="000001", reason="faster", now_us=1)
    with pytest.raises(ConflictError, match="held by version '000001'"):
        others[0].result()
    assert [move.reason for move in aliases.history("late", "champion")] == ["faster"]


def test_of_many_that_move_it_from_one_version_one_wins(aliases: Aliases) -> None:
    ready, holder = threading.Barrier(4), None
    for turn in range(5):
        others = [version for version in ("000001", "000002", "000003") if version != holder][:2]

        def move(to: str, expect: str | None = holder, at_us: int = turn) -> str | None:
            ready.wait()
            try:
                return aliases.move("late", "champion", expect=expect, to=to, reason="", now_us=at_us).to
            except ConflictError:
                return None

        with ThreadPoolExecutor(4) as pool:
            winners = [to for to in pool.map(move, others * 2) if to is not None]
        assert len(winners) == 1
        holder = winners[0]
    assert len(aliases.history("late", "champion")) == 5


def test_a_record_that_is_no_move_is_named(aliases: Aliases, project_database: Database) -> None:
    Records(project_database, "alias_move").append("late/champion", 1, {})
    with pytest.raises(PackageError, match="alias 'late/champion': has a corrupt move 1"):
        aliases.get("late", "champion")
