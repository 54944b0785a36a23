"""Each platform's driver against a local server, which starts from a read-only bundle: no database, no definitions."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.contract.settings import load_settings
from tests.docs.pages import names, page, section, steps, table
from tests.nightly.deploy.image import HARDENED, UID, running_container
from tests.nightly.deploy.platform_cases import (
    Row,
    check_concurrent,
    check_errors,
    check_forms,
    check_limits,
    check_other_routes,
    check_predictions_are_complete,
    check_readiness_per_model,
    check_slow_body,
    csv_body,
    instances,
    open_slow_request,
    scores,
    valid_body,
)
from tests.nightly.deploy.platform_drivers import (
    AZURE,
    CSV,
    DRIVERS,
    KSERVE,
    SAGEMAKER,
    Driver,
    LocalContainer,
    PlatformContainer,
    local_container,
)
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.ports import free_ports
from tests.worlds.trained import FIRST_CARD, NOW, Sandbox, ask, copy_project, move_project, open_project
from tests.worlds.waiting import eventually

pytestmark = pytest.mark.long
ROWS: list[Row] = [*ask(8), {"card_id": 1, "shop_id": None, "amount": None, "paid_at": NOW}]


@dataclass(frozen=True, kw_only=True)
class BundleWorld:
    """A project whose online store is filled, and its bundle as a folder and as an archive."""

    place: Sandbox
    folder: Path
    archive: Path
    expected: list[float]

    @property
    def redis_url(self) -> str:
        return self.place.project.redis_url

    @property
    def settings(self) -> dict[str, str]:
        """What a user sets in the platform's configuration of the container."""
        return {
            "SKEWLESS_REDIS_URL": self.redis_url,
            "SKEWLESS_CLOCK": f"file:{self.place.repo}/.skewless/clock",
            "SKEWLESS_HOST": "127.0.0.1",  # this machine is not a container
        }


@pytest.fixture(scope="module")
def bundle_world(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BundleWorld]:
    folder = tmp_path_factory.mktemp("platforms")
    with ExitStack() as stack:
        node = stack.enter_context(running(Node(program("valkey"), folder / "valkey")))
        project = open_project(copy_project(trained, folder / "p"), redis_url=node.url)
        place = stack.enter_context(closing(Sandbox(project=project)))
        project.materialize(check=False)
        project.bundle(folder / "bundle")
        (folder / "packed").mkdir()
        project.bundle(folder / "packed" / "model.tar.gz")
        yield BundleWorld(
            place=place,
            folder=folder / "bundle",
            archive=folder / "packed",
            expected=place.predict(ROWS).scores.tolist(),
        )


@pytest.fixture(scope="module", params=DRIVERS, ids=lambda driver: driver.name)
def container(bundle_world: BundleWorld, request: pytest.FixtureRequest) -> Iterator[LocalContainer]:
    driver: Driver = request.param
    model = bundle_world.archive if driver is AZURE else bundle_world.folder
    with local_container(driver, model, free_ports(1)[0], bundle_world.settings) as started:
        started.wait()
        yield started
        # The platform ends the container while a request is under way.
        body = valid_body(started, ROWS)
        with open_slow_request(started, body) as slow:
            slow.sendall(body[:-1])
            assert started.is_healthy()
            started.process.terminate()
            slow.sendall(body[-1:])
            assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")
        started.stop()


def check_contract(container: PlatformContainer, expected: list[float]) -> None:
    """Do what the platform does."""
    check_forms(container, ROWS, expected)
    check_limits(container, ROWS, expected)
    check_slow_body(container, ROWS)
    check_concurrent(container, ROWS, expected)
    check_other_routes(container)
    check_readiness_per_model(container)
    if container.driver is not KSERVE:
        check_errors(container, ROWS)
        check_predictions_are_complete(container, ROWS)
    if container.driver is SAGEMAKER:
        assert container.ask("GET", "/ping").body == b""


def test_contract(container: LocalContainer, bundle_world: BundleWorld) -> None:
    check_contract(container, bundle_world.expected)


@pytest.mark.soak
@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_contract_of_the_image(driver: Driver, bundle_world: BundleWorld, server_image: str, tmp_path: Path) -> None:
    """The image runs as its own user, with a read-only root and model."""
    (port,) = free_ports(1)
    clock = shutil.copyfile(bundle_world.place.repo / ".skewless" / "clock", tmp_path / "clock")
    os.chown(clock, UID, UID)
    model = bundle_world.folder if driver is AZURE else bundle_world.archive
    mounts = (f"--volume={model}:{driver.mount}:ro", f"--volume={clock}:/clock")
    settings = {**bundle_world.settings, **driver.environment(port), "SKEWLESS_CLOCK": "file:/clock"}
    with running_container(server_image, "serve", settings=settings, options=(*HARDENED, *mounts)) as running_image:
        container = PlatformContainer(driver=driver, port=port)
        eventually(lambda: container.is_healthy() or not running_image.is_running())
        assert running_image.is_running(), running_image.logs()
        check_contract(container, bundle_world.expected)
        assert running_image.stop(int(driver.grace_s)) == 0
        assert "Traceback" not in running_image.logs()


@pytest.mark.soak
def test_predictions_of_a_container_with_the_database_are_proven(
    trained: Path, bundle_world: BundleWorld, shared_addresses: ProjectAddresses, tmp_path: Path
) -> None:
    """The bundle only names the project: the champion and the log are those of the database."""
    repo, redis_url = move_project(copy_project(trained, tmp_path / "p"), shared_addresses), bundle_world.redis_url
    settings = load_settings(repo)
    shared = {"DATABASE_URL": str(settings.database_url), "STORAGE_URL": str(settings.storage_url)}
    variables = {f"SKEWLESS_{name}": value for name, value in shared.items()}
    with local_container(
        SAGEMAKER, bundle_world.folder, free_ports(1)[0], {**bundle_world.settings, **variables}
    ) as container:
        container.wait()
        assert scores(container.predict(instances(ROWS))) == bundle_world.expected
        container.stop()
    with open_project(repo, redis_url=redis_url) as project:
        report = project.replay()
        assert report.ok, report.lines()
        assert report.compared == len(ROWS)


SECTIONS = {"sagemaker": "SageMaker"}


def test_the_page_shows_what_the_container_answers(container: LocalContainer) -> None:
    title = SECTIONS.get(container.driver.name)
    for step in steps(section(page("platforms.md"), title)) if title else ():
        words = shlex.split(step.command.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{container.port}"))
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
        assert re.fullmatch(".*".join(map(re.escape, step.shown.strip().split("..."))), said), (step, said)


def test_the_page_lists_the_contracts() -> None:
    rows = table(page("platforms.md"), "platform", "model", "port", "predictions", "health", "ends with")
    found = {names(row["platform"])[0]: row for row in rows}
    assert list(found) == [driver.name for driver in DRIVERS]
    for driver in DRIVERS:
        row, model = found[driver.name], names(found[driver.name]["model"])[0]
        assert (driver.variables.get(model) or model) == driver.mount
        if driver.name != "kserve":
            paths = [names(row[column])[-1].split(" ")[-1] for column in ("predictions", "health")]
            assert [driver.variables.get(path, path) for path in paths] == [driver.predict, driver.health]
        if driver.port_variable != "SKEWLESS_PORT":
            assert names(row["port"]) == [driver.port_variable]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | st.none()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20) | st.none()
GENERATED = st.lists(
    st.fixed_dictionaries(
        {
            "card_id": st.integers(FIRST_CARD, FIRST_CARD + 9) | st.integers(-(2**63), 2**63 - 1) | st.none(),
            "shop_id": st.sampled_from(["shop-01", "shop-02"]) | TEXTS,
            "amount": NUMBERS,
            "paid_at": st.integers(0, NOW),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25)
@given(rows=GENERATED)
def test_bodies_of_platforms_give_the_scores_of_predict(container: LocalContainer, rows: list[Row]) -> None:
    if container.driver is KSERVE:  # a tensor of integers has no null
        rows = [{**row, "card_id": row["card_id"] or 1} for row in rows]
    plain = scores(container.ask("POST", "/predict", json.dumps({"rows": rows}).encode()))
    assert all(map(math.isfinite, plain))
    replies = [container.predict(valid_body(container, rows))] if container.driver is KSERVE else []
    if container.driver is not KSERVE:
        replies = [container.predict(instances(rows)), container.predict(csv_body(rows), CSV)]
    assert [scores(reply) for reply in replies] == [plain] * len(replies)
