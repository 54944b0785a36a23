"""Draws the output of the demo as a picture of a terminal: ``python -m tools.picture [--text FILE] PICTURE``.

Without ``--text`` it runs ``skewless demo`` on the flights, which takes five minutes. The picture names no font of
another host, so that a page with it needs no network.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
LINES_OF_A_STAGE = 5
ROOT = Path(__file__).resolve().parent.parent
_WIDTH = 118
_CURSOR = re.compile(r"^(?:\x1b\[\?\d+[hl])+\n?", re.MULTILINE)


def shorten_stages(lines: Iterable[Text], most: int = LINES_OF_A_STAGE) -> Iterator[Text]:
    """Yield the title of each stage and its first lines; a line of dots is in the place of the others.

    A title begins at the margin, and the other lines do not. The last line of a stage, its time, is shown.
    """
    stages: list[list[Text]] = []
    for line in lines:
        if not line.plain.startswith(" ") or not stages:
            stages.append([])
        stages[-1].append(line)
    for stage in stages:
        if len(stage) <= most + 2:
            yield from stage
        else:
            yield from [*stage[: most + 1], Text("  ...", style="dim"), stage[-1]]


def draw_terminal(output: str, title: str) -> str:
    """Return an SVG of a terminal that shows some lines, whose colours are ANSI codes."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in shorten_stages(Text.from_ansi(line) for line in output.rstrip("\n").split("\n")):
        console.print(line, overflow="ellipsis", no_wrap=True, highlight=False)
    return console.export_svg(title=title, code_format=FORMAT, unique_id="demo")


def record_demo(repo: str) -> str:
    """Return the output of the demo, with colours."""
    command = [sys.executable, "-m", "skewless.cli", "demo", "--repo", repo]
    environment = os.environ | {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(_WIDTH)}
    # To a pipe the command prints its facts; people read the other stream.
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    return clean_output(output)


def clean_output(output: str, root: Path = ROOT) -> str:
    """Return an output without codes that move the cursor, the path of the checkout, and the scheme of addresses."""
    return _CURSOR.sub("", output).replace(f"{root}/", "").replace("http://", "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="tools.picture", description="Draw the output of the demo.")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    parser.add_argument("--text", type=Path, help="a file with the output, instead of running the demo")
    parser.add_argument("--repo", default="feature_repo", help="the folder of the flights")
    options = parser.parse_args(arguments)
    output = options.text.read_text(encoding="utf-8") if options.text else record_demo(options.repo)
    options.picture.write_text(draw_terminal(output, "make demo"), encoding="utf-8")


if __name__ == "__main__":
    main()
