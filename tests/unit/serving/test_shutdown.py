"""The way out: asked once, asked twice, asked by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skewless.serving.shutdown import Shutdown, cause_of, on_signals
from tests.worlds.waiting import PATIENCE_S


def test_draining_takes_its_time_unless_asked_again() -> None:
    async def drain(*, again: bool) -> float:
        shutdown = Shutdown()
        shutdown.request()
        if again:
            asyncio.get_running_loop().call_later(0.01, shutdown.request)
        begun = time.monotonic()
        await shutdown.wait_drained(PATIENCE_S if again else 0.05)
        return time.monotonic() - begun

    assert asyncio.run(drain(again=False)) >= 0.05
    assert asyncio.run(drain(again=True)) < PATIENCE_S


async def test_to_begin_twice_is_not_to_hurry() -> None:
    shutdown = Shutdown()
    shutdown.begun.set()
    shutdown.begun.set()
    waiting = asyncio.create_task(shutdown.forced.wait())
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    assert done is False


async def test_within_says_whether_the_shutdown_came() -> None:
    shutdown = Shutdown()
    before = await shutdown.wait(0.01)
    asyncio.get_running_loop().call_later(0.01, shutdown.begun.set)
    assert (before, await shutdown.wait(PATIENCE_S)) == (False, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_and_tells_the_service_manager(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", "n")

    async def until_asked() -> None:
        shutdown = Shutdown()
        with on_signals(shutdown):
            os.kill(os.getpid(), number)
            await asyncio.wait_for(shutdown.begun.wait(), PATIENCE_S)

    before = signal.signal(number, signal.SIG_DFL)  # under nohup a hang-up is ignored
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("n")
            manager.settimeout(PATIENCE_S)
            asyncio.run(until_asked())
            assert manager.recv(100) == b"STOPPING=1"
    finally:
        signal.signal(number, before)


def test_a_terminal_that_hangs_up_is_ignored_where_it_was_before() -> None:
    async def asked() -> bool:
        shutdown = Shutdown()
        with on_signals(shutdown):
            os.kill(os.getpid(), signal.SIGHUP)
            return await shutdown.wait(0.05)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert asyncio.run(asked()) is False
    finally:
        signal.signal(signal.SIGHUP, before)


def test_native_code_that_crashes_leaves_its_stacks() -> None:
    start = "import os; from skewless.serving.shutdown import report_crashes; "
    crash = start + "report_crashes(); os.kill(os.getpid(), 11)"
    done = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, check=False)
    assert "Segmentation fault" in done.stderr
    assert "most recent call first" in done.stderr
    assert cause_of(done.returncode).startswith("SIGSEGV: native code crashed")


@pytest.mark.parametrize(
    ("code", "cause"),
    [(-9, "SIGKILL: killed by a user"), (-15, "SIGTERM"), (3, "exit code 3"), (0, "exit code 0"), (-99, "signal 99")],
)
def test_each_end_of_a_worker_has_a_cause(code: int, cause: str) -> None:
    assert cause_of(code).startswith(cause)


def test_a_signal_begins_the_shutdown_though_nobody_reads_the_log() -> None:
    program = """
import asyncio, os, signal
from skewless.serving.shutdown import Shutdown, on_signals
async def until_asked():
    shutdown = Shutdown()
    with on_signals(shutdown):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(shutdown.begun.wait(), 60)
asyncio.run(until_asked())
print("ended")
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert done.stdout == b"ended\n"
