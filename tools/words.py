"""Finds private language in texts: ``python -m tools.words [PATH...]``; exit code 1 if it finds any.

It checks the strings, docstrings, comments and log events of the product's modules, and the prose of the pages. The
rules are in ``tools/words.toml``, each with an example.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "tools" / "words.toml"
_PRODUCT = ("skewless", "infra", "serving", "training", "validation", "feature_repo")
_SKIPPED = {"CHANGELOG.md"}
_CODE = re.compile(r"^(?P<fence>```|~~~).*?^(?P=fence)|`[^`\n]+`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
_TOKENS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.COMMENT)}


@dataclass(frozen=True)
class Rule:
    """One pattern that no text may have.

    Args:
        pattern: a regular expression; ignores case.
        instead: what to write instead.
        bad: a text that matches the pattern.
        good: the corrected text.
    """

    pattern: str
    instead: str
    bad: str
    good: str

    @property
    def expression(self) -> re.Pattern[str]:
        """Return the compiled pattern, in which a space also matches the end of a line."""
        return re.compile(self.pattern.replace(" ", r"\s+"), re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """One match of a pattern in a text."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}; write {self.instead}"


def read_rules(path: Path = RULES) -> tuple[Rule, ...]:
    """Return the rules of a file."""
    return tuple(Rule(**item) for item in tomllib.loads(path.read_text(encoding="utf-8"))["rule"])


def find_matches(path: str, text: str, rules: Sequence[Rule]) -> Iterator[Match]:
    """Yield the matches of the rules in one module or page."""
    for first, passage in _python_texts(text) if path.endswith(".py") else [(1, _blank_code(text))]:
        for rule in rules:
            for match in rule.expression.finditer(passage):
                line = first + passage.count("\n", 0, match.start())
                yield Match(path, line, " ".join(match[0].split()), rule.instead)


def _python_texts(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TOKENS:
            text = _blank_code(token.string)
            # Names of log events are words, too. Names of metrics must not change, so they are not checked.
            is_event_name = " " not in text and "skewless_" not in text
            yield token.start[0], text.replace("_", " ") if is_event_name else text


def _blank_code(text: str) -> str:
    """Return a text with its code blanked out and all line breaks kept."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text.replace("``", "`"))


def _files(paths: Sequence[str]) -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", *(paths or [*_PRODUCT, "docs", "*.md"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [
        name for name in names if name.endswith((".py", ".md")) and name not in _SKIPPED and (ROOT / name).is_file()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the matches and their number."""
    parser = argparse.ArgumentParser(prog="tools.words", description="Find private language in texts.")
    parser.add_argument("paths", nargs="*", help="files or folders; none: the product and its pages")
    rules = read_rules()
    matches = [
        match
        for name in _files(parser.parse_args(arguments).paths)
        for match in find_matches(name, (ROOT / name).read_text(encoding="utf-8"), rules)
    ]
    for match in matches:
        print(match)
    if matches:
        sys.exit(f"{len(matches)} places. Fix: write them as docs/glossary.md and tools/words.toml say")


if __name__ == "__main__":
    main()
