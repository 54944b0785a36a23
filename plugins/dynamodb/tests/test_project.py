"""A project on DynamoDB whose materialisation, backfill and stream are killed: values are those of the log."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.store import StorePlace
from tests.nightly.integration.test_other_store import CARD, WINDOWS, paid, write_file
from tests.servers.aws import AwsServer
from tests.worlds.command_line import done
from tests.worlds.payments_data import write_payments


def kill_after(aws: AwsServer, puts: int, *words: str | Path) -> None:
    """Run a command and kill it after so many writes to the table."""
    aws.fail()
    seen = 0
    with subprocess.Popen(
        [sys.executable, "-m", "skewless.cli", *map(str, words)], stdout=subprocess.DEVNULL
    ) as process:
        while seen < puts:
            assert process.poll() is None, "it ended before its kill"
            time.sleep(0.02)
            seen += aws.fail().get("PutItem", 0)
        process.kill()


@pytest.mark.soak
def test_7_1_values_are_those_of_the_log_after_kills(
    aws: AwsServer, online_place: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_REDIS_URL", online_place.url)
    monkeypatch.setenv("SKEWLESS_THREADS", "1")
    repo = tmp_path / "shop"
    write_payments(repo)
    definitions = repo / "definitions.py"
    definitions.write_text(definitions.read_text() + WINDOWS)
    for verb in ("apply", "import"):
        done(verb, "--repo", repo)
    for puts in (100, 200):
        kill_after(aws, puts, "materialize", "--repo", repo)
    done("materialize", "--repo", repo)
    kill_after(aws, 50, "backfill", "--repo", repo)
    done("backfill", "--repo", repo)
    live = write_file(tmp_path / "live", [event for card in range(CARD, CARD + 200) for event in paid(card, 3)])
    kill_after(aws, 50, "stream", "--replay", live, "--until-idle", "--repo", repo)
    (counts,) = done("stream", "--replay", live, "--until-idle", "--repo", repo)["sources"]
    assert counts["trouble"] is None
    parity = done("parity", "--sample", "100000", "--repo", repo)
    assert {name: view["by_cause"] for name, view in parity["views"].items()} == {
        name: {} for name in ("card_days", "card_hour", "shop_risk")
    }
    assert parity["views"]["card_hour"]["compared"] >= 200, json.dumps(parity)
