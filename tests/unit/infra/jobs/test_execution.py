"""Work in processes: answers, limits, and the line that is cut when the scheduler is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from skewless.infra.platform.jobs import lifeline
from skewless.infra.platform.jobs.execution import Completion, ProcessExecution, decode_outputs
from tests.worlds.waiting import eventually, is_alive, until

SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def work(*command: str, silence_s: float = 60.0) -> ProcessExecution:
    return ProcessExecution(
        [sys.executable, "-c", *command], environment=os.environ, silence_s=silence_s, stdout=tempfile.TemporaryFile()
    )


def ended_of(item: ProcessExecution) -> Completion:
    ended = eventually(item.poll)
    assert ended is not None
    return ended


def pid_in(path: Path) -> int:
    return int(eventually(lambda: path.exists() and path.read_text()))


def test_the_answer_and_the_code_come_back() -> None:
    ended = ended_of(work("print('{\"rows\": 3}'); raise SystemExit(5)"))
    assert ended == Completion(code=5, outputs={"rows": 3})
    assert (ended.state, ended.error) == ("refused", "ended with exit code 5")


def test_the_last_lines_of_the_log_come_back_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    say = "import sys; sys.stderr.write('first\\n' + 'x' * 99 + '\\n'); "
    many = "[sys.stderr.write(f'line {n}\\n') for n in range(9_000)]; sys.stderr.write('redis://u:secret@host\\n'); "
    done = ended_of(work(say))
    assert done.log == f"first\n{'x' * 99}\n"
    failed = ended_of(work(say + many + "raise SystemExit(1)"))
    assert failed.log.endswith("line 8999\nredis://***@host\n")
    assert 4_096 < len(failed.log) <= 16_384
    assert "line 0\n" in capsys.readouterr().err


def test_a_process_that_is_left_behind_does_not_hold_up_the_end() -> None:
    leave = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    assert ended_of(work(leave)).code == 0


def test_an_error_is_the_sentence_that_the_verb_said() -> None:
    ended = Completion(code=7, outputs={"error": {"message": "Redis: away"}})
    assert (ended.state, ended.error) == ("failed", "Redis: away")
    assert (Completion(code=0).state, Completion(code=0).error) == ("done", None)
    assert Completion(code=lifeline.LIFELINE_CUT).state == "lost"


def test_a_long_answer_is_cut_to_its_plain_values() -> None:
    assert decode_outputs(b'{"n": 1, "error": {"message": "m"}, "rows": [' + b"1, " * 40_000 + b"1]}") == {
        "n": 1,
        "error": {"message": "m"},
    }


def test_a_long_answer_loses_its_largest_values_only() -> None:
    short, long = '{"n": 1, "versions": [{"auc": 0.8}], "windows": [', ", ".join(["0.1"] * 30_000)
    assert decode_outputs(f"{short}{long}]}}".encode()) == {"n": 1, "versions": [{"auc": 0.8}]}


def test_work_is_asked_to_end(tmp_path: Path) -> None:
    item = work(SLEEPER, str(tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    item.terminate()
    assert ended_of(item).code not in {0, lifeline.LIFELINE_CUT}
    until(lambda: not is_alive(pid))


def test_work_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    item = work(STUBBORN, str(tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    item.terminate()
    assert item.poll() is None
    item.kill()
    assert ended_of(item).state == "lost"
    until(lambda: not is_alive(pid))


def test_work_ends_when_nobody_beats(tmp_path: Path) -> None:
    item, begun = work(STUBBORN, str(tmp_path / "pid"), silence_s=1.0), tmp_path / "pid"
    while not (begun.exists() and begun.read_text()):
        item.send_heartbeat()
        time.sleep(0.05)
    pid = pid_in(begun)
    assert ended_of(item).state == "lost"
    until(lambda: not is_alive(pid))


def test_work_ends_with_the_process_that_began_it(tmp_path: Path) -> None:
    holder = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, sys.argv[1], '60', sys.executable, '-c', "
        "sys.argv[2], sys.argv[3]], stdin=subprocess.PIPE); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, lifeline.__file__, STUBBORN, str(tmp_path / "pid")]
    with subprocess.Popen(command) as process:
        pid = pid_in(tmp_path / "pid")
        process.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(pid))


def test_beating_work_that_has_ended_does_nothing() -> None:
    item = work("pass")
    assert ended_of(item).code == 0
    item.send_heartbeat()
    item.kill()
