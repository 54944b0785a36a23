"""Logs go to stderr, as lines or JSON, and hold no password."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.platform.telemetry.logger import EventLogger, configure_logging, set_log_level
from skewless.infra.platform.telemetry.redaction import redact

SECRET = "p@ss:w/rd"  # noqa: S105 - the point of the test
URL = f"rediss://ann:{SECRET}@db:6379/0"


def log_one(capsys: pytest.CaptureFixture[str]) -> str:
    configure_logging()
    try:
        int(URL)
    except ValueError:
        structlog.get_logger().exception("lost", url=URL, detail={"parts": [f"at {URL}"]}, n=3)
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize("style", ["json", ""])
def test_no_line_holds_a_password(
    style: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_LOG", style)
    said = log_one(capsys)
    assert SECRET not in said
    assert said.count("rediss://***@db:6379/0") == 3


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_LOG", "json")
    line = json.loads(log_one(capsys))
    assert (line["event"], line["level"], line["n"]) == ("lost", "error", 3)
    assert line["timestamp"].endswith("Z")


def test_people_get_the_event_and_its_fields(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKEWLESS_LOG", raising=False)
    said = log_one(capsys)
    assert "lost" in said
    assert "n=3" in said


@pytest.mark.parametrize(("level", "variable", "shown"), [("info", "", 1), ("warning", "", 0), ("warning", "info", 1)])
def test_a_command_shows_no_line_below_its_level(
    level: str, variable: str, shown: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_LOG_LEVEL", variable)
    monkeypatch.setattr("skewless.infra.platform.telemetry.logger._default_level", "info")
    set_log_level(level)
    EventLogger().info("plan_loaded")
    EventLogger().warning("lost")
    said = capsys.readouterr().err
    assert (said.count("plan_loaded"), said.count("lost")) == (shown, 1)


def test_a_hidden_line_does_not_wait_for_an_import(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread is importing structlog, of which nothing is there yet."""
    monkeypatch.setitem(sys.modules, "structlog", ModuleType("structlog"))
    EventLogger().debug("hidden")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("style", ["json", ""])
def test_a_line_is_of_bounded_length(
    style: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_LOG", style)
    configure_logging()
    long = "HEAD" + "x" * 1_000_000 + "TAIL\ud800"
    structlog.get_logger().error("lost", path=long, raw=long[:-1].encode(), detail=[long])
    said = capsys.readouterr().err
    assert len(said) < 3 * 20_000
    assert said.count("HEAD") == said.count("TAIL") == 3


KEY = "sk_web-shop_" + "aB3_-" * 8 + "xyz"  # the same in every process that collects these tests
BITS = KEY.removeprefix("sk_web-shop_")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEY, "sk_web-shop_***"),
        (f"key {KEY}, or a part of it: {KEY[:24]}.", "key sk_web-shop_***, or a part of it: sk_web-shop_***."),
        (f"Authorization: Bearer {KEY}", "Authorization: ***"),
        (f"(b'authorization', b'Bearer {KEY}')", "(b'authorization', b'***')"),
        (f"bearer {BITS}", "bearer ***"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: ***"),
        ('{"X-API-Key": "foreign-token"}', '{"X-API-Key": "***"}'),
        ("x-api-key=foreign;", "x-api-key=***"),
        ("authorization is required; the bearer of a key asks", "authorization is required; the bearer of a key asks"),
        ("sk:project:hash:applied", "sk:project:hash:applied"),
    ],
)
def test_a_key_is_masked_wherever_it_stands(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_headers_that_are_logged_show_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for style in ("json", ""):
        monkeypatch.setenv("SKEWLESS_LOG", style)
        configure_logging()
        headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"x-api-key", KEY.encode())]
        structlog.get_logger().error("refused", headers=headers, secret=KEY.encode(), by={"x-api-key": KEY})
        said = capsys.readouterr().err
        assert "sk_web-shop_***" in said
        assert BITS[:8] not in said


@given(user=st.text("ab:@/", max_size=5), word=st.text("xyz@:/?#%", min_size=1, max_size=12))
def test_a_url_loses_user_and_password_whatever_they_are(user: str, word: str) -> None:
    assert redact(f"at redis://{user}:{word}@host:1/0 now") == "at redis://***@host:1/0 now"


@given(st.text(st.characters(exclude_characters="@")))
def test_a_text_without_a_user_stays(text: str) -> None:
    assert redact(text) == text
