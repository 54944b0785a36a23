"""The compose file: valid, hardened, without secrets, and at one with the files that it mounts."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import typer
import yaml

from skewless.cli import create_app
from skewless.commands.all_commands import COMMANDS
from skewless.contract.settings import Settings
from tests.deploy.test_rules import run_tool
from tests.docs.pages import blocks, page
from tests.nightly.deploy.compose import FILE, FOLDER, OURS, read_compose, variables_of_compose
from tests.nightly.deploy.image import CONTAINERFILE
from tests.servers.prediction import ROOT

VALUES = dict.fromkeys(variables_of_compose(), "secret") | {"PROJECT": "/srv/p", "GATEWAY_PEM": "/srv/gateway.pem"}
OTHER_VARIABLES = {"SKEWLESS_LOG", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KAFKA_BOOTSTRAP_SERVERS"}
_CHECK = "import sys, compose_spec; compose_spec.PyCompose.from_yaml(sys.stdin.read()).validate()"


def services() -> dict[str, Any]:
    found: dict[str, Any] = read_compose(VALUES)["services"]
    return found


def check(compose: dict[str, Any]) -> str:
    """Return what a strict reader of the compose specification says about a file; nothing: it is valid."""
    python = ROOT / ".venv-deploy" / "bin" / "python"
    if not list(ROOT.glob(".venv-deploy/lib/python3*/site-packages/compose_spec")):
        pytest.skip("no compose_spec on this machine: `make setup-deploy` brings it")
    text = yaml.safe_dump(compose)
    done = subprocess.run([str(python), "-c", _CHECK], input=text, capture_output=True, text=True, check=False)
    return done.stderr


def test_the_file_is_valid() -> None:
    compose = read_compose(VALUES)
    assert check(compose) == ""
    compose["services"]["stream"]["stop_grace_periods"] = "60s"
    assert "stop_grace_periods" in check(compose)


def test_the_example_of_the_environment_names_all_variables() -> None:
    example = (FOLDER / "env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == variables_of_compose()
    assert re.findall(r"^\w*(?:PASSWORD|KEY)=.+$", example, re.MULTILINE) == []


def test_no_secret_is_in_the_file() -> None:
    lines = re.findall(r"^ .*(?:PASSWORD|SECRET|requirepass).*$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 4
    assert [line for line in lines if "${" not in line] == []


def test_ports_are_on_loopback_and_images_are_pinned() -> None:
    for name, service in services().items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if name not in OURS:
            assert re.search(r":(?:v?\d+\.\d+|RELEASE\.\d)", service["image"]), name


def test_our_containers_have_the_fewest_rights() -> None:
    for name in OURS:
        service = services()[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["volumes"][0] == "/srv/p:/srv/project:ro"
        assert service["build"]["dockerfile"] == "infra/deploy/image/Containerfile"
        assert f"skewless-{service['build']['target']}" == service["image"]
        assert (FOLDER / service["build"]["context"]).resolve() == ROOT


def test_our_containers_are_given_settings_and_commands_that_exist() -> None:
    settings = {f"SKEWLESS_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        service = services()[name]
        assert service["environment"].keys() - settings - OTHER_VARIABLES == set(), name
        words = [word for word in service.get("command", []) if not word.startswith("-") and not word.isdigit()]
        assert set(words) <= {command.name for command in COMMANDS}


def test_a_server_has_more_time_than_it_needs_to_end() -> None:
    drain = float(services()["server-1"]["environment"]["SKEWLESS_DRAIN_SECONDS"])
    grace = float(services()["server-1"]["stop_grace_period"].removesuffix("s"))
    assert drain + 30 < grace  # requests in progress have 30 s


def test_the_gateway_knows_the_addresses_of_the_servers() -> None:
    text = (ROOT / "infra/deploy/gateways/haproxy.cfg").read_text(encoding="utf-8")
    for name in ("server-1", "server-2"):
        assert f"skewless-{name[-1]} {services()[name]['networks']['inside']['ipv4_address']}:8080" in text


def test_what_is_mounted_exists() -> None:
    mounts = [mount for service in services().values() for mount in service.get("volumes", [])]
    assert all((FOLDER / mount.partition(":")[0]).is_file() for mount in mounts if mount.startswith("."))


def test_prometheus_scrapes_each_program_of_ours() -> None:
    run_tool("check", "config", "--syntax-only", str(FOLDER / "prometheus.yml"))
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert {target.partition(":")[0] for found in targets.values() for target in found} == {*OURS} - {"jobs"}
    standalone = yaml.safe_load((ROOT / "infra/deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert targets.keys() == {job["job_name"] for job in standalone["scrape_configs"]}


def test_the_store_keeps_what_it_is_given() -> None:
    words = services()["store"]["command"].split()
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"


def test_the_broker_tells_clients_the_address_that_the_pages_name() -> None:
    told = services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].partition(",")[0]
    assert f"`{told.removeprefix('PLAINTEXT://')}`" in page("streams.md")
    inside = services()["stream"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith(f"INSIDE://{inside}")


def test_the_commands_of_the_page_exist() -> None:
    lines = [line for block in blocks(page("containers.md"), "sh") for line in block.splitlines()]
    targets = re.findall(r"^FROM scratch AS (\w+)$", CONTAINERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    built = [line.split() for line in lines if line.startswith("podman build ")]
    assert [words[words.index("--target") + 1] for words in built] == ["server", "jobs"]
    assert {*targets} == {"server", "jobs"}
    assert {words[words.index("-f") + 1] for words in built} == {CONTAINERFILE.relative_to(ROOT).as_posix()}
    jobs = [line.split()[5:] for line in lines if line.startswith("docker compose run --rm jobs ")]
    assert len(jobs) > 5
    for words in jobs:
        command: Any = typer.main.get_command(create_app())
        rest = iter(words)
        while hasattr(command, "commands"):
            command = command.commands[next(rest)]
        command.make_context("", [*rest])  # parses and converts, runs nothing
