"""What the doctor says about worlds that are not as they should be."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
import redis

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.library import open_library
from skewless.infra.platform.host.processes import Process
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.operations.health.checks import examine
from skewless.operations.health.checkup import machine, packages
from skewless.operations.health.checkup.project import check_plan, find_problems
from skewless.operations.health.finding import CheckFinding


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")]
)
def test_python(version: tuple[int, int], verdict: str) -> None:
    finding = packages.check_python(version)
    assert (finding.verdict, finding.fix is None) == (verdict, verdict == "ok")


def test_packages_missing_and_of_a_wrong_version_are_named_with_the_command_that_helps() -> None:
    have: Mapping[str, str] = {"pandas": "3.0.1", "numpy": "2.1.0"}
    lines = ["numpy>=1.26", "pandas<3", "duckdb>=2.0,<3", "xgboost-cpu>=3; extra == 'cpu'"]
    findings = {finding.name: finding for finding in packages.judge_packages(lines, have.get)}
    assert set(findings) == {"packages", "package pandas", "package duckdb"}
    assert (findings["package pandas"].verdict, findings["package pandas"].fix) == ("fail", 'pip install "pandas<3"')
    assert findings["package duckdb"].fix == 'pip install "duckdb<3,>=2.0"'
    assert findings["packages"].detail == "numpy 2.1.0"


def test_the_packages_of_this_environment_are_those_that_it_has() -> None:
    lines = metadata.requires("skewless") or []
    required = [line for line in lines if "extra ==" not in line or re.search(r"extra == .(serve|project)\b", line)]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in required}
    installed = {(item.metadata["Name"] or "").lower().replace("_", "-") for item in metadata.distributions()}
    missing = {finding.name for finding in packages.check_packages() if finding.detail == "is not installed"}
    assert missing == {f"package {name}" for name in names - installed}


def test_without_feast_the_packages_of_a_server_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=1.26", "uvicorn>=0.50; extra == 'serve'", "feast>=0.67; extra == 'project'"]
    monkeypatch.setattr(metadata, "requires", lambda _name: lines)
    monkeypatch.setattr(packages, "installed", {"numpy": "2.1.0"}.get)
    findings = {finding.name: finding for finding in packages.check_packages()}
    assert {name: finding.verdict for name, finding in findings.items()} == {
        "package uvicorn": "fail", "packages": "ok", "extra project": "warn",
    }  # fmt: skip
    assert findings["extra project"].fix == "only for those: pip install 'skewless[project]'"


def test_a_missing_openmp_is_told_from_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        value = "libgomp.so.1: cannot open shared object file: No such file or directory"
        raise PackageError("runtime 'lightgbm'", "its library cannot be loaded", value=value, fix="reinstall lightgbm")

    monkeypatch.setattr("sys.platform", "linux")
    assert packages.judge_runtime("lightgbm", broken).fix == "apt-get install libgomp1"
    (tmp_path / "no_such_runtime/lib").mkdir(parents=True)
    (tmp_path / "no_such_runtime/__init__.py").touch()
    (tmp_path / "no_such_runtime/lib/lib.so").write_bytes(b"not a library")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = packages.judge_runtime("x", lambda: open_library("no_such_runtime", "lib", "VERSION", "error").version)
    assert (finding.verdict, finding.fix) == ("fail", "reinstall no_such_runtime")
    assert [finding.verdict for finding in packages.check_runtimes()] == ["ok", "ok"]


def test_a_port_in_use_fails_unless_our_own_server_uses_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        finding = machine.check_port("127.0.0.1", port, None)
        assert (finding.verdict, finding.fix) == ("fail", "set another port, or serve with --port 0")
        assert machine.check_port("127.0.0.1", port, f"http://127.0.0.1:{port}").verdict == "ok"
        elsewhere = machine.check_port("127.0.0.1", port, "http://127.0.0.1:9")
        assert (elsewhere.name, elsewhere.detail) == ("port 9", "this project's server listens at http://127.0.0.1:9")
    assert machine.check_port("127.0.0.1", 0, None).verdict == "ok"


def test_a_state_folder_that_cannot_be_one_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = machine.check_disk(tmp_path / "file/state")
    assert finding.verdict == "fail"
    assert "'state'" in (finding.fix or "")
    assert machine.check_disk(tmp_path / "not/yet").verdict in {"ok", "warn"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("free", "verdict"), [(2**20, "fail"), (2**30, "warn"), (2**40, "ok")])
def test_little_space_is_said(free: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert machine.check_disk(tmp_path).verdict == verdict


def test_memory_is_the_smaller_of_machine_and_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "memory.max")
    whole = machine.machine_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.machine_memory() == whole
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.machine_memory() == 1_048_576


def test_a_redis_that_is_away_fails_without_its_password() -> None:
    (finding,) = machine.check_url("redis://ann:hush@127.0.0.1:1/0", 100.0)
    assert finding.verdict == "fail"
    assert "redis://***@127.0.0.1:1/0" in finding.detail
    assert "hush" not in finding.detail


def test_a_redis_that_may_evict_fails(tmp_path: Path) -> None:
    server = PrivateServer(tmp_path, grace_s=0.2)
    try:
        url = server.ensure()
        assert [finding.verdict for finding in machine.check_store(tmp_path, None, 1e9)] == ["ok", "ok", "ok"]
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        (finding,) = machine.check_url(url, 1e9)
        assert (finding.verdict, finding.fix) == ("fail", "set maxmemory-policy noeviction")
    finally:
        server.stop()


def test_a_private_server_that_ends_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = PrivateServer(tmp_path)
    private.ensure()

    def check(url: str, limit_ms: float) -> list[CheckFinding]:
        private.stop()
        return check_url(url, limit_ms)

    check_url = machine.check_url
    monkeypatch.setattr(machine, "check_url", check)
    assert [finding.name for finding in machine.check_store(tmp_path, None, 1e9)] == ["private redis"]


def test_a_private_server_that_cannot_run_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/nowhere/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("skewless.operations.health.checkup.machine.find_binary", lambda: program)
    finding = machine.check_program()
    assert finding.verdict == "fail"
    assert "SKEWLESS_REDIS_URL" in (finding.fix or "")


def test_each_problem_of_a_process_names_its_alert() -> None:
    detail = {"refused": {"fraud 000002": "signature is missing"}, "log": "disk is full", "sources": [{"source": "s"}]}
    process = Process(kind="server", host="web1", pid=7, started_s=0.0, beat_s=100.0, detail=detail)
    assert [*find_problems(process, 101.0)] == [
        ("model_refused", "fraud 000002", "is not served: signature is missing"),
        ("prediction_log", "server web1 7", "cannot write the prediction log: disk is full"),
    ]
    assert [*find_problems(process, 160.0)] == [("process_silent", "server web1 7", "sent no heartbeat for 1 min")]


def test_outside_a_project_the_machine_is_still_examined(tmp_path: Path) -> None:
    verdicts = {finding.name: finding.verdict for finding in examine(tmp_path)}
    assert verdicts["plan"] == "warn"
    assert {"python", "packages", "runtime lightgbm", "gpu", "memory", "private redis"} <= set(verdicts)


def test_a_wrong_setting_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "skewless.yaml").write_text("colour: red\n")
    finding = examine(tmp_path)[-1]
    assert (finding.name, finding.verdict) == ("settings", "fail")
    assert "colour" in finding.detail


def test_a_damaged_plan_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").touch()
    state = ProjectState(tmp_path)
    assert check_plan(tmp_path, state).detail == "no plan is applied yet"
    Records(state.database, "plan").add("applied", {})
    assert check_plan(tmp_path, state).verdict == "fail"
