"""Every verb and option is documented, and every command in the pages could be typed."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from skewless.cli import create_app
from skewless.commands.all_commands import COMMANDS, flatten, plugin_commands
from tests.docs.pages import PAGES, blocks, page, section

COMMON = {"--help", "-h", "--repo", "--json"}


def commands_of(command: Any, above: str = "") -> dict[str, Any]:  # noqa: ANN401 - click's, untyped
    """Return all commands by what is typed, those in groups too."""
    commands: dict[str, Any] = {}
    for name, below in getattr(command, "commands", {}).items():
        commands |= commands_of(below, f"{name} ") or {above + name: below}
    return commands


PLUGINS = plugin_commands([])
BY_NAME = commands_of(typer.main.get_command(create_app(PLUGINS)))


def commands() -> list[str]:
    """Return every command line of skewless in the pages' fenced blocks."""
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    lines = [
        line
        for text in texts
        for kind in ("sh", "console")
        for block in blocks(text, kind)
        for line in block.splitlines()
    ]
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("skewless ")]


@pytest.mark.parametrize("name", [command.name for command in (*COMMANDS, *flatten(PLUGINS))])
def test_a_verb_and_its_options_are_documented(name: str) -> None:
    text = section(page("commands.md"), f"skewless {name}")
    options = {option for param in BY_NAME[name].params for option in param.opts if option.startswith("--")}
    assert {option for option in options - COMMON if f"`{option}" not in text and f" {option} " not in text} == set()


def test_only_verbs_that_exist_are_documented() -> None:
    assert sorted(re.findall(r"^### skewless (\w+(?: \w+)?)$", page("commands.md"), re.MULTILINE)) == sorted(BY_NAME)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_the_pages_can_be_typed(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    verb = max((name for name in BY_NAME if words[: len(name.split())] == name.split()), key=len)
    BY_NAME[verb].make_context(verb, words[len(verb.split()) :])  # parses and converts, runs nothing
