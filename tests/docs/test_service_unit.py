"""The example of a systemd unit starts a command that exists, and gives it what the server counts on."""

from __future__ import annotations

import shlex
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import typer

from skewless.cli import create_app
from skewless.contract.settings import load_settings

UNIT = Path(__file__).parents[2] / "infra" / "deploy" / "skewless.service"


def unit() -> ConfigParser:
    parsed = ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(UNIT.read_text(encoding="utf-8"))
    return parsed


def test_the_unit_starts_a_command_that_can_be_typed() -> None:
    commands: dict[str, Any] = getattr(typer.main.get_command(create_app()), "commands")  # noqa: B009 - untyped
    program, verb, *words = shlex.split(unit()["Service"]["ExecStart"])
    assert Path(program).name == "skewless"
    assert commands[verb].make_context(verb, words).params["workers"] > 1


def test_the_unit_sets_what_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = unit()["Service"]["Environment"].partition("=")
    monkeypatch.setenv(name, value)
    assert load_settings(tmp_path).drain_seconds == float(value)


def test_systemd_waits_until_the_server_is_ready_and_tells_the_supervisor_alone() -> None:
    service = unit()["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert float(service["TimeoutStopSec"]) > 5 + 30
