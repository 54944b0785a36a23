"""Finds private language in everything that people read: ``python -m tools.words [PATH...]``; exit code 1 if it does.

Read are the strings, docstrings, comments and log events of the product's modules, and the prose of the pages; code is
not. The rules are data, with an example each: ``tools/words.toml``. A rule also matches across the end of a line. Names
of metrics and of stored fields must not change, so they are not read.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "tools" / "words.toml"
_PRODUCT = ("skewless", "infra", "serving", "training", "validation", "feature_repo")
_CODE = re.compile(
    r"^ *(?P<fence>```+|~~~+).*?^ *(?P=fence) *$"  # a block of code in a page
    r"|^ *>>> .*(?:\n *\.\.\. ?.*)*"  # a doctest
    r"|``.+?``|`(?:[^`\n]|\n(?! *\n))+`"
    r"|\]\([^)]*\)|<[^>\n]*>",  # the target of a link, a tag
    re.MULTILINE | re.DOTALL,
)
# A comment or a string of Python: the tokens of the standard library take three times as long.
_COMMENT_OR_STRING = re.compile(
    r"""(?P<comment>#[^\n]*)|(?P<quote>\"{3}|'{3}|["'])(?:[^\\]|\\.)*?(?P=quote)""", re.DOTALL
)


@dataclass(frozen=True)
class Rule:
    """One pattern that no text may have.

    Args:
        pattern: a regular expression; case does not matter.
        instead: what to write.
        bad: a text that has the pattern.
        good: the same text as it should be.
    """

    pattern: str
    instead: str
    bad: str
    good: str

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Return the compiled pattern, in which a space also matches the end of a line."""
        return re.compile(self.pattern.replace(" ", r"\s+"), re.IGNORECASE)


@dataclass(frozen=True)
class WordMatch:
    """One place where a text has a pattern."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}; write {self.instead}"


def read_rules(path: Path = RULES) -> tuple[Rule, ...]:
    """Return the rules of a file."""
    return tuple(Rule(**item) for item in tomllib.loads(path.read_text(encoding="utf-8"))["rule"])


def read_stored(path: Path = RULES) -> frozenset[str]:
    """Return the names of stored fields, which keep old words."""
    return frozenset(tomllib.loads(path.read_text(encoding="utf-8"))["stored"])


def find_matches(
    path: str, text: str, rules: Sequence[Rule], stored: frozenset[str] = frozenset()
) -> Iterator[WordMatch]:
    """Yield each place where a module or a page breaks a rule; ``stored``: names of fields that may."""
    page = [(1, sys.maxsize, _blank_code(text))]
    for first, last, prose in _read_module(text, stored) if path.endswith(".py") else page:
        for rule in rules:
            for match in rule.expression.finditer(prose):
                line = min(last, first + prose.count("\n", 0, match.start()))
                yield WordMatch(path, line, " ".join(match[0].split()), rule.instead)


def _read_module(source: str, stored: frozenset[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the first line, the last line and the text of each string and comment."""
    yield from _read_comments(source)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr | ast.Constant)]
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            # A value is a comma: no rule matches across it, in any version of Python.
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "," for part in node.values)
        elif isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if text in stored or text.startswith("skewless_"):
            continue
        # The name of a log event reads as words, too.
        prose = _blank_code(text) if " " in text else text.replace("_", " ")
        yield node.lineno, node.end_lineno or node.lineno, prose


def _read_comments(source: str) -> Iterator[tuple[int, int, str]]:
    """Yield the comments, with those on consecutive lines as one text."""
    first, lines = 0, list[str]()
    line = place = 0
    for found in _COMMENT_OR_STRING.finditer(source):
        if found["comment"] is None:
            continue
        line, place = line + source.count("\n", place, found.start()), found.start()
        if lines and line + 1 != first + len(lines):
            yield first, first + len(lines) - 1, _blank_code("\n".join(lines))
            lines = []
        first = first if lines else line + 1
        lines.append(found["comment"].lstrip("#"))
    if lines:
        yield first, first + len(lines) - 1, _blank_code("\n".join(lines))


def _blank_code(text: str) -> str:
    """Return a text whose code is blank, with its lines where they were."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _list_files(paths: Sequence[str]) -> list[str]:
    tracked = subprocess.run(
        ["git", "ls-files", *(paths or [*_PRODUCT, "docs", "*.md"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [name for name in tracked if name.endswith((".py", ".md")) and (ROOT / name).is_file()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print each match, and how many there are."""
    parser = argparse.ArgumentParser(prog="tools.words", description="Find private language in texts.")
    parser.add_argument("paths", nargs="*", help="files or folders; none: the product and its pages")
    rules, stored = read_rules(), read_stored()
    matches = [
        match
        for name in _list_files(parser.parse_args(arguments).paths)
        for match in find_matches(name, (ROOT / name).read_text(encoding="utf-8"), rules, stored)
    ]
    for match in matches:
        print(match)
    if matches:
        sys.exit(f"{len(matches)} places. Fix: write them as docs/glossary.md and tools/words.toml say")


if __name__ == "__main__":
    main()
