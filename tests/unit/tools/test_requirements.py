"""The bill of materials names what is locked and nobody's machine; an audit that looked nothing up is no pass."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from skewless.version import __version__
from tools.audit import check_file, judge_results
from tools.sbom import make_bill, read_pins

ROOT = Path(__file__).parents[3]
LOCKED = (ROOT / "requirements.txt").read_text()
FOUND = {"name": "a", "version": "1", "vulns": []}
HIT = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
MISSED = {"name": "c", "skip_reason": "not found"}


def test_the_bill_is_that_of_the_locked_requirements() -> None:
    body = json.loads((ROOT / "sbom.json").read_text())
    assert body == make_bill(read_pins(LOCKED), "skewless", __version__), "run `make lock`"
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCKED, re.MULTILINE))
    assert {(item["name"], item["version"]) for item in body["components"]} == pinned
    refs = {item["bom-ref"] for item in body["components"]}
    needs = {item["ref"]: set(item["dependsOn"]) for item in body["dependencies"]}
    assert needs.keys() == refs | {f"pkg:pypi/skewless@{__version__}"}
    assert set().union(*needs.values()) == refs, "each is there because something asks for it"


def test_the_bill_names_no_place() -> None:
    text = (ROOT / "sbom.json").read_text()
    assert re.findall(r'://|["\s:=]/\w', text) == []  # neither a host nor an absolute path


@pytest.mark.parametrize(
    ("found", "code"),
    [([FOUND], 0), ([FOUND, HIT], 1), ([FOUND, MISSED], 2), ([MISSED, MISSED], 2), ([HIT, MISSED], 1), ([], 2)],
)
def test_what_was_not_looked_up_is_no_pass(found: list[dict[str, object]], code: int) -> None:
    assert judge_results("r.txt", found)[0] == code
    said = " ".join(judge_results("r.txt", found)[1])
    assert ("could not be checked" in said) == (code == 2 or MISSED in found)
    assert ("b 2: CVE-1, fixed in 2.1" in said) == (HIT in found)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('ConnectionError: no route to host')", "no route to host"),
        ("print('{}')", "could not be read"),
        ("print('[1]')", "could not be read"),
        ("", "exit code 0"),
    ],
)
def test_an_audit_without_an_index_says_so(program: str, words: str) -> None:
    code, said = check_file("requirements.txt", (sys.executable, "-c", program))
    assert code == 2
    assert words in " ".join(said)


def test_an_audit_without_its_tool_says_so() -> None:
    code, said = check_file("requirements.txt", ("no-such-program",))
    assert code == 2
    assert "no-such-program cannot be run" in said[0]
