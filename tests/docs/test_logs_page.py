"""docs/logs.md names exactly the events that the code logs, with levels and fields."""

from __future__ import annotations

import json
import subprocess
import sys

from skewless.infra.platform.telemetry.logger import FORMAT_VARIABLE, LEVEL_VARIABLE
from tests.docs.log_events import ROOT, logged_events
from tests.docs.pages import names, page, section, table

SECTIONS = (
    "The server",
    "Runtimes",
    "Database, storage and logs",
    "Plans and views",
    "Streams",
    "Scheduler, training and rollouts",
)


def test_the_page_names_exactly_the_events_of_the_code() -> None:
    rows = [
        row
        for title in SECTIONS
        for row in table(section(page("logs.md"), title), "event", "level", "fields", "meaning")
    ]
    assert len(rows) == len({row["event"] for row in rows})
    found = {names(row["event"])[0]: row for row in rows}
    events = logged_events()
    assert len(events) > 70
    assert found.keys() == events.keys()
    for name, event in events.items():
        assert set(found[name]["level"].split(", ")) == event.levels, name
        fields = set(names(found[name]["fields"]))
        assert fields == event.fields or (event.is_open and fields > event.fields), name
        assert found[name]["meaning"].endswith("."), name


_LOG = """
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.request_ids import log_request
log = EventLogger()
log.debug("hidden")
with log_request(b"checkout-17"):
    log.info("model_loaded", model="fraud", url="redis://ann:hush@host/0", key="sk_web_0123456789abcdef")
try:
    secret = "hush"
    raise ValueError("odd")
except ValueError as error:
    log.error("request_failed", path="/predict", exc_info=error)
"""


def said(form: str, level: str = "") -> list[str]:
    """Return the lines of a program."""
    environment = {FORMAT_VARIABLE: form, LEVEL_VARIABLE: level, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _LOG]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "hush" not in done.stderr
    return done.stderr.splitlines()


def test_lines_are_json_with_the_fields_of_the_page_or_text_for_people() -> None:
    loaded, failed = map(json.loads, said("json"))
    timestamp = loaded.pop("timestamp")
    assert timestamp.endswith("Z")
    assert loaded == {
        "event": "model_loaded",
        "level": "info",
        "request_id": "checkout-17",
        "model": "fraud",
        "url": "redis://***@host/0",
        "key": "sk_web_***",
    }
    assert "ValueError: odd" in failed["exception"]
    shown = {names(row["field"])[0] for row in table(page("logs.md"), "field", "in", "meaning")}
    assert shown == {"event", "level", "timestamp", "request_id", "exception"}
    text = said("console", "debug")
    assert "hidden" in text[0]
    assert "request_id=checkout-17" in text[1]
    assert len(said("json", "error")) == 1
