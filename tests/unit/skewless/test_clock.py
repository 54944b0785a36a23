"""SEMANTICS 1.1: int64 microseconds, UTC; and clocks that a test or a demo can move."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.clock import ManualClock, OffsetClock, SystemClock, from_us, open_clock, to_us
from skewless.contract.errors import DefinitionError, PlaceError

ROOT = Path(__file__).parents[3]
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("moment", "us"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(1, 1, 1, tzinfo=UTC), -62_135_596_800_000_000),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799_999_999),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=None), SECOND),  # noqa: DTZ001 - the rule is about naive times
    ],
)
def test_1_1_time_is_microseconds_since_the_epoch_in_utc(moment: datetime, us: int) -> None:
    assert to_us(moment) == us


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_1_1_microseconds_survive_the_way_there_and_back(us: int) -> None:
    moment = from_us(us)
    assert moment.utcoffset() == timedelta(0)
    assert to_us(moment) == us


def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(1)
    assert [clock.now_us(), clock.now_us()] == [1, 1]
    clock.set(-5)
    assert clock.now_us() == -5


def test_the_system_clock_is_the_machines() -> None:
    before = time.time_ns() // 1_000
    assert before <= SystemClock().now_us() <= time.time_ns() // 1_000


_MOVER = """
import sys, time
from pathlib import Path
from skewless.contract.clock import OffsetClock
clock = OffsetClock(Path(sys.argv[1]))
end = time.monotonic() + 0.4
n = 0
while time.monotonic() < end:
    n += 1
    clock.set(time.time_ns() // 1_000 + (n % 2 or -1) * 0x0102030405)
"""


def test_who_reads_an_offset_clock_while_it_is_moved_sees_the_time_before_or_after_and_no_other(tmp_path: Path) -> None:
    far, clock = 0x0102030405, OffsetClock.create(tmp_path / "clock")
    clock.set(SystemClock().now_us() + far)
    with subprocess.Popen([sys.executable, "-c", _MOVER, str(tmp_path / "clock")], cwd=ROOT) as mover:
        seen = []
        while mover.poll() is None:
            seen += [abs(clock.now_us() - SystemClock().now_us()) for _ in range(1_000)]
    assert mover.returncode == 0
    assert len(seen) > 10_000
    assert [distance for distance in seen if abs(distance - far) > 60 * SECOND] == []


def test_an_offset_clock_begins_as_the_machines_and_ticks_when_moved(tmp_path: Path) -> None:
    clock = OffsetClock.create(tmp_path / "new" / "clock")
    assert abs(clock.now_us() - SystemClock().now_us()) < 60 * SECOND
    clock.set(1_000 * SECOND)
    first = clock.now_us()
    assert 1_000 * SECOND <= first < 1_060 * SECOND
    assert clock.now_us() >= first


def test_an_offset_clock_is_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    clock = OffsetClock.create(path)
    clock.set(5_000 * SECOND)
    code = f"from skewless.contract.clock import open_clock; print(open_clock('file:{path}').now_us())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert 5_000 * SECOND <= int(run.stdout) < 5_060 * SECOND


def test_a_setting_names_the_clock(tmp_path: Path) -> None:
    assert isinstance(open_clock("system"), SystemClock)
    OffsetClock.create(tmp_path / "clock")
    assert isinstance(open_clock(f"file:{tmp_path / 'clock'}"), OffsetClock)


def test_a_clock_is_created_once(tmp_path: Path) -> None:
    OffsetClock.create(tmp_path / "clock").set(9 * SECOND)
    assert 9 * SECOND <= OffsetClock.create(tmp_path / "clock").now_us() < 69 * SECOND


def test_a_missing_clock_file_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clock"
    with pytest.raises(PlaceError, match=r"clock file .*/new/clock: is missing.*relative to the project"):
        open_clock(f"file:{path}")
    assert not path.parent.exists()


@pytest.mark.parametrize("setting", ["", "sytsem", "files:/tmp/x"])
def test_a_clock_that_does_not_exist_is_refused(setting: str) -> None:
    with pytest.raises(DefinitionError, match="setting 'clock': is not a clock"):
        open_clock(setting)


@given(st.binary(max_size=40).filter(lambda data: len(data) != 8))
def test_a_clock_file_of_another_size_is_named(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "clock")
        path.write_bytes(data)
        with pytest.raises(PlaceError, match=rf"clock file .* does not have 8 bytes \(got {len(data)}\)"):
            open_clock(f"file:{path}")


@given(st.binary(min_size=8, max_size=8))
def test_whatever_eight_bytes_give_a_time_or_a_sentence(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "clock")
        path.write_bytes(data)
        try:
            clock = open_clock(f"file:{path}")
        except PlaceError:
            return  # which time no calendar has is said in the test below
        assert from_us(clock.now_us()).tzinfo is UTC


@pytest.mark.parametrize("offset", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_a_time_of_no_calendar_is_named(tmp_path: Path, offset: int) -> None:
    (tmp_path / "clock").write_bytes(offset.to_bytes(8, "little", signed=True))
    with pytest.raises(PlaceError, match=r"clock file .* has an offset beyond the years 1 to 9999"):
        open_clock(f"file:{tmp_path / 'clock'}")
