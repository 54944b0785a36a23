"""Names, at the end of a run, each real system that tests have used: its version, and how many of them passed.

A system is known by a program that this process starts, or by a call of ``note_system``. Its version is asked from the
same program, at the end. A test has used a system if the program was started in it, or in one of its fixtures.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

_PROPERTY = "real_system"
_VERSION = re.compile(r"\d+\.\d[\w.+-]*")
_ANSWER_S = 60
_OUTCOMES = ("passed", "failed", "skipped")
_ERROR = "error"
# Name of the program, or a word of its command line: the system, and how its version is asked.
_ASK = ("--version",)
_PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "alertmanager": ("Alertmanager", _ASK),
    "envoy": ("Envoy", _ASK),
    "haproxy": ("HAProxy", ("-v",)),
    "nginx": ("nginx", ("-v",)),
    "pg_ctl": ("PostgreSQL", _ASK),
    "podman": ("podman", _ASK),
    "prometheus": ("Prometheus", _ASK),
    "prometheus-alertmanager": ("Alertmanager", _ASK),
    "promtool": ("Prometheus", _ASK),
    "redis-server": ("Redis", _ASK),
    "spark-submit": ("Spark", _ASK),
    "valkey-server": ("Valkey", _ASK),
}
_MOTO = ("-c", "import moto; print(moto.__version__)")
_RAY = ("-c", "import ray; print(ray.__version__)")
_SKIPPED = {
    "apicurio": "Apicurio",
    "kafka": "Apache Kafka",
    "kubernetes": "Kubernetes",
    "chromium": "Chromium",
    "ray": "Ray",
    "spark": "Spark",
    "moto": "moto",
} | {program: name for program, (name, _) in _PROGRAMS.items()}
System = tuple[str, tuple[str, ...]]  # its name, and the command that tells its version
_started: set[System] = set()  # since the last fixture or test began


def note_system(name: str, *command: str | Path) -> None:
    """Note that the fixture or test that runs uses a system; the command tells its version."""
    _started.add((name, tuple(map(str, command))))


def note_kafka(java: str, jars: Path) -> None:
    """Note Apache Kafka; its version is asked from the jars that the broker runs."""
    note_system("Apache Kafka", java, "-cp", f"{jars}/*", "kafka.Kafka", "--version")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or isinstance(arguments[1], str):
        return
    words = [str(word) for word in arguments[1]]
    for place, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name in _PROGRAMS and not set(_PROGRAMS[name][1]) & set(words):  # started, and not asked
            system, ask = _PROGRAMS[name]
            note_system(system, word, *ask)
        elif word == "moto.server" or name == "aws_program.py":
            note_system("moto", words[place - 1] if name == "aws_program.py" else words[place - 2], *_MOTO)
        elif name == "gcs_server":
            note_system("Ray", sys.executable, *_RAY)


class RealSystems:
    """The plugin, in the controller and in each worker of xdist."""

    def __init__(self) -> None:
        self._of_fixtures: dict[Any, set[System]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Remember the systems that a fixture starts: later tests that have it use them, too."""
        before = set(_started)
        _started.clear()
        try:
            return (yield)
        finally:
            self._of_fixtures[fixturedef] = set(_started)
            _started.update(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the systems of a test to its report."""
        fixtures = item._request._fixture_defs.values() if isinstance(item, pytest.Function) else ()
        for fixture in fixtures:
            _started.update(self._of_fixtures.get(fixture, ()))
        report = yield
        report.user_properties += [(_PROPERTY, (name, list(command))) for name, command in sorted(_started)]
        if report.when == "teardown":
            _started.clear()
        return report

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401 - untyped
        """Write the table, unless the run is to be quiet."""
        if (lines := table_of(terminalreporter.stats)) and config.get_verbosity() >= 0:
            terminalreporter.section("real systems")
            for line in lines:
                terminalreporter.write_line(line)


def table_of(stats: dict[str, list[Any]]) -> list[str]:
    """Return the lines of the table, none if no test has used a system."""
    counts: dict[System, Counter[str]] = defaultdict(Counter)
    for outcome in (*_OUTCOMES, _ERROR):
        for report in stats.get(outcome, []):
            systems = {(name, tuple(command)) for key, (name, command) in _properties(report) if key == _PROPERTY}
            for system in systems or (_missing(report) if outcome == "skipped" else ()):
                counts[system]["failed" if outcome == _ERROR else outcome] += 1
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (name, command), found in counts.items():
        rows[name, ask_version(command)] += found
    if not rows:
        return []
    head = f"{'system':14} {'version':22} " + " ".join(f"{outcome:>7}" for outcome in _OUTCOMES)
    return [
        head,
        *(
            f"{name:14} {version:22} " + " ".join(f"{found[outcome]:7}" for outcome in _OUTCOMES)
            for (name, version), found in sorted(rows.items())
        ),
    ]


def ask_version(command: Sequence[str]) -> str:
    """Return the version that a command tells; without a command, the system is missing."""
    if not command:
        return "missing"
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_S)
    found = _VERSION.search(said.stdout) or _VERSION.search(said.stderr)
    return found[0] if found else "unknown"


def _properties(report: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - reports of files have none
    return [pair for pair in getattr(report, "user_properties", ()) if pair[0] == _PROPERTY]


def _missing(report: Any) -> set[System]:  # noqa: ANN401 - as above
    """Return the system that the reason of a skip names."""
    words = set(re.findall(r"[a-z][a-z-]+", str(report.longrepr[2]).lower()))
    return {(name, ()) for word, name in _SKIPPED.items() if word in words}


def register_systems(config: pytest.Config) -> None:
    """Watch the programs that this process starts, and write the table at the end."""
    sys.addaudithook(_watch)
    config.pluginmanager.register(RealSystems(), "real_systems")
