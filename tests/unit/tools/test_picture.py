"""The picture of the demo shows the first lines of each stage and names no other host."""

from __future__ import annotations

import re
from pathlib import Path

from rich.text import Text

from tools.picture import clean_output, draw_terminal, main, shorten_stages

ROOT = Path(__file__).parents[3]


def test_a_long_stage_is_shortened_and_shows_its_last_line() -> None:
    lines = ["First", "  a", "Second", *(f"  {number}" for number in range(9)), "Third"]
    shown = [line.plain for line in shorten_stages(map(Text, lines), most=2)]
    assert shown == ["First", "  a", "Second", "  0", "  1", "  ...", "  8", "Third"]


def test_codes_of_the_cursor_and_the_path_of_the_checkout_are_removed() -> None:
    output = "\x1b[1mStage\x1b[0m\n\x1b[?25l\x1b[?25h\n  status --repo /a/repo\n  http://127.0.0.1:9 ready\n"
    assert clean_output(output, Path("/a")) == "\x1b[1mStage\x1b[0m\n  status --repo repo\n  127.0.0.1:9 ready\n"


def test_the_picture_names_no_other_host(tmp_path: Path) -> None:
    text = tmp_path / "demo.txt"
    text.write_text("\x1b[1mReplay\x1b[0m\n  76,028 predictions\n")
    main(["--text", str(text), str(tmp_path / "demo.svg")])
    picture = (tmp_path / "demo.svg").read_text()
    assert picture == draw_terminal(text.read_text(), "make demo")
    assert "predictions" in picture
    for svg in (picture, *(path.read_text() for path in (ROOT / "docs").glob("*.svg"))):
        body = re.sub(r"<metadata>.*?</metadata>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)
        addresses = set(re.findall(r"https?://[^\"' ]+", body))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
