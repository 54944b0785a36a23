"""Each deep check of the doctor fails on a real fault, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.settings import Settings
from skewless.infra.platform.host.processes import ProcessRecord
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup import deep, peers
from tests.docs.pages import names, page, section, steps, table
from tests.nightly.deploy.doctor_lines import judged, lines
from tests.nightly.worlds.certificates import write_certificate
from tests.nightly.worlds.small_disk import mounted
from tests.servers.node import Node, running
from tests.servers.prediction import ROOT, PredictionServer
from tests.servers.programs import program
from tests.worlds.command_line import fingerprint, run
from tests.worlds.trained import MODEL, Sandbox, open_project, opened_copy, serving
from tests.worlds.waiting import until

_HOUR_S = 3_600


@pytest.fixture(scope="module")
def doctored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, PredictionServer]]:
    """A project with its server; tests leave it as it was."""
    with opened_copy(trained, tmp_path_factory.mktemp("doctor") / "p") as place, serving(place.repo) as server:
        yield place, server


def doctor(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """Return verdict and detail of each line that the command prints."""
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{place.repo}/.skewless/clock")
    said = run("doctor", "--deep", "--repo", place.repo, "--json")
    assert said.code == (0 if said.body["ok"] else 1)
    return {check["name"]: (check["verdict"], check["detail"]) for check in said.body["checks"]}


def half_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each disk be half free: how full the disk of this machine is does not matter to a test."""
    bsize, frsize, blocks, *rest = os.statvfs("/")
    usage = os.statvfs_result((bsize, frsize, blocks, blocks // 2, blocks // 2, *rest[2:]))
    monkeypatch.setattr("os.statvfs", lambda _: usage)


def test_a_healthy_project_is_well_and_stays_as_it_was(
    doctored: tuple[Sandbox, PredictionServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, server = doctored
    half_free(monkeypatch)
    doctor(place, monkeypatch)  # the first command of a process may write hints
    keys, before = sorted(place.redis.scan_iter()), fingerprint(place.state)
    checks = doctor(place, monkeypatch)
    deep_names = {
        "free disk",
        "files",
        "redis version",
        "redis memory",
        "redis persistence",
        "redis commands",
        "database version",
        "database round trip",
        "storage round trip",
        "leases",
        "log lag",
        f"prediction {MODEL}",
    }
    assert deep_names <= set(checks)
    assert {name: checks[name] for name in deep_names if checks[name][0] != "ok"} == {}
    assert "64 reference rows bit equal" in checks[f"prediction {MODEL}"][1]
    (session,) = (step for step in steps(section(page("operations.md"), "doctor --deep")) if "--deep" in step.command)
    assert {line[5:].partition(":")[0] for line in session.shown.splitlines() if line[:5].strip() == "ok"} == deep_names
    rows = table(page("operations.md"), "check", "`warn` if", "`fail` if")
    listed = {name.replace("MODEL", MODEL) for row in rows for name in names(row["check"])}
    assert deep_names - {"leases"} <= listed
    after = fingerprint(place.state)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith(("redis/", "skewless.db/documents/process"))} == set()
    assert sorted(place.redis.scan_iter()) == keys
    text = str(server.get("/metrics"))
    assert "skewless_predictions_total{" not in text
    assert not place.log_files()


def test_a_synthetic_prediction_says_which_views_it_could_not_read(
    doctored: tuple[Sandbox, PredictionServer],
) -> None:
    place, server = doctored
    ending = f"{place.view('shop_risk').hash}:applied".encode()
    (marker,) = (key for key in place.redis.scan_iter() if key.endswith(ending))
    value = place.redis.get(marker)
    assert isinstance(value, bytes)
    place.redis.delete(marker)
    try:
        (finding,) = deep.check_predictions(server.url)
        assert (finding.verdict, "UNAVAILABLE: shop_risk" in finding.detail) == ("warn", True)
        assert "skewless materialize" in (finding.fix or "")
    finally:
        place.redis.set(marker, value)
    (finding,) = deep.check_predictions(server.url)
    assert finding.verdict == "ok"


def test_predictions_without_the_store_or_the_right_key_fail(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_copy(trained, tmp_path / "p") as place:
        secret = place.project.keys.add("web", scope=["feedback"]).secret
        with running(Node(program("valkey"), tmp_path / "v")) as node:
            place.project.private.stop()
            settings = {"SKEWLESS_AUTH": "required", "SKEWLESS_REDIS_URL": node.url}
            with open_project(place.repo, redis_url=node.url) as project:
                project.materialize(check=False)
            with serving(place.repo, **settings) as server:
                (finding,) = deep.check_predictions(server.url)
                assert (finding.name, finding.verdict) == ("predictions", "warn"), finding
                assert "SKEWLESS_API_KEY" in (finding.fix or "")
                monkeypatch.setenv("SKEWLESS_API_KEY", secret or "")
                assert judged(deep.check_predictions(server.url)) == {f"prediction {MODEL}": "ok"}
                node.kill()
                (finding,) = deep.check_predictions(server.url)
                assert (finding.name, finding.verdict) == (f"prediction {MODEL}", "fail")
                assert "Redis" in finding.detail or "online store" in finding.detail


def test_commands_that_a_redis_user_may_not_run_are_named(tmp_path: Path) -> None:
    with running(Node(program("redis"), tmp_path / "node")) as node:
        node.ask("ACL", "SETUSER", "ann", "on", ">pw", "~sk:*", "+@all", "-mset", "-script", "-eval")
        url = f"redis://ann:pw@127.0.0.1:{node.port}/0"
        state, settings = ProjectState(tmp_path), Settings(redis_url=url)
        found = lines(peers.check_redis(state, settings, None))
        assert found["redis commands"] == ("fail", "the user may not run script, eval, mset")
        node.ask("ACL", "SETUSER", "ann", "+@all", "resetkeys", "~other:*")
        found = lines(peers.check_redis(state, settings, None))
        assert found["redis commands"] == ("fail", "the user may not run set, get, mget, eval, evalsha, mset, unlink")
        node.ask("ACL", "SETUSER", "ann", "allkeys")
        assert judged(peers.check_redis(state, settings, None))["redis commands"] == "ok"
        node.ask("ACL", "SETUSER", "ann", "-info")
        (finding,) = peers.check_redis(state, settings, None)
        assert (finding.name, finding.verdict) == ("redis", "fail")
        assert node.ask("DBSIZE") == 0


def test_a_full_redis_and_one_whose_disk_is_full_fail(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    with mounted(folder, "1m"), running(Node(program("redis"), folder)) as node:
        state, settings = ProjectState(tmp_path), Settings(redis_url=node.url)
        found = lines(peers.check_redis(state, settings, None))
        assert (found["redis persistence"][0], found["redis memory"][0]) == ("warn", "ok")
        used = int(node.info("memory")["used_memory"])
        node.ask("CONFIG", "SET", "maxmemory", int(used * 1.05))
        assert lines(peers.check_redis(state, settings, None))["redis memory"][0] == "warn"
        node.ask("CONFIG", "SET", "maxmemory", 1)
        verdict, detail = lines(peers.check_redis(state, settings, None))["redis memory"]
        assert (verdict, "is full and refuses writes" in detail) == ("fail", True)
        node.ask("CONFIG", "SET", "maxmemory", 0)
        with contextlib.suppress(OSError):
            (folder / "filler").write_bytes(bytes(1 << 20))
        node.ask("BGSAVE")
        until(lambda: node.info("persistence")["rdb_last_bgsave_status"] == "err")
        found = lines(peers.check_redis(state, settings, None))
        assert found["redis persistence"] == ("fail", "the last write to its disk failed (rdb_last_bgsave_status)")


def test_a_full_disk_fails(tmp_path: Path) -> None:
    with mounted(tmp_path, "1m"):
        assert deep.check_disk_share(tmp_path).verdict == "ok"
        (tmp_path / "filler").write_bytes(bytes(1_000_000))
        finding = deep.check_disk_share(tmp_path)
        assert (finding.verdict, finding.detail[1:]) == ("warn", f"% of the disk of {tmp_path}")
        finding, *_ = peers.check_storage(FolderStorage(tmp_path), is_remote=False, limit_ms=100.0)
        assert finding.verdict == "fail"
        assert "No space left on device" in finding.detail


_AS_NOBODY = """
import json, sys
from pathlib import Path
from skewless.operations.health.checkup.deep import check_files
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(check_files(Path(sys.argv[1])).as_dict()))
"""


def as_nobody(folder: Path) -> tuple[str, str]:
    """Return verdict and detail of the check, by a user who is not root."""
    command = [sys.executable, "-c", _AS_NOBODY, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    finding = json.loads(done.stdout)
    return finding["verdict"], finding["detail"]


def test_files_of_another_user_fail() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "log").mkdir()
        (folder / "log/one.parquet").touch()
        assert as_nobody(folder) == ("fail", "1 file of the state folder not accessible: .")
        folder.chmod(0o755)
        os.chown(folder, 65_534, 65_534)
        assert as_nobody(folder) == ("fail", "1 file of the state folder not accessible: log")
        assert deep.check_files(folder).verdict == "ok"


@pytest.mark.parametrize(("days", "verdict"), [(400, "ok"), (5, "warn"), (-3, "fail")])
def test_the_certificate(days: int, verdict: str, tmp_path: Path) -> None:
    write_certificate(tmp_path, days)
    settings = Settings(tls_cert="server.crt", tls_key="server.key")
    (finding,) = deep.check_certificate(tmp_path, settings)
    assert finding.verdict == verdict
    assert ("expired 3 days ago" in finding.detail) == (verdict == "fail")
    (tmp_path / "server.crt").write_text("no certificate")
    (finding,) = deep.check_certificate(tmp_path, settings)
    assert (finding.verdict, finding.detail) == ("fail", "server.crt cannot be read")


def test_a_project_whose_scheduler_is_gone_fails(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    state.database.execute("SELECT 1")
    assert judged(deep.check_leases(state)) == {"leases": "ok"}  # nobody has ever run one here
    leases = Leases(state.database)
    lease = leases.acquire("scheduler")
    assert lease is not None
    found = lines(deep.check_leases(state))
    assert found["scheduler"][0] == "ok"
    assert f" {os.getpid()} leads" in found["scheduler"][1]
    assert f"scheduler: {found['scheduler'][1].split(' leads')[0]}" in found["leases"][1]
    leases.release(lease)
    none = "none leads, 0 schedulers alive: no job runs"
    assert lines(deep.check_leases(state))["scheduler"] == ("warn", none)
    record = ProcessRecord(state, "scheduler")
    record.send_heartbeat("", {})
    until(lambda: judged(deep.check_leases(state))["scheduler"] == "fail")  # it lives, and does not lead
    record.close()


def test_predictions_that_wait_for_the_log_are_counted(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    assert deep.check_spool(state).verdict == "ok"
    path = state / "spool/predictions/1.parquet"
    path.parent.mkdir(parents=True)
    path.touch()
    assert deep.check_spool(state).verdict == "ok"  # a second ago
    os.utime(path, (time.time() - _HOUR_S, time.time() - _HOUR_S))
    finding = deep.check_spool(state)
    assert (finding.verdict, finding.detail) == ("warn", "1 file not in the log yet, the oldest for 1 h")
