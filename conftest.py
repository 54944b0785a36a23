"""Settings for all tests, also those of plug-ins."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

from skewless.infra.platform.host import priority, processes
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import open_database
from skewless.infra.reads.online.private_server import PrivateServer
from tests.late_collection import longest_timeout, quick_imports, register_late_collection
from tests.servers.cluster import Cluster, cluster
from tests.servers.kafka import KafkaBroker, named_broker, shared_broker
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.systems import register_systems
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.built_once import built_once, close_databases

if TYPE_CHECKING:
    from tests.browser.visitor import Visitor
    from tests.servers.apicurio import ApicurioRegistry
    from tests.servers.object_storage import ObjectStorageServer
    from tests.servers.registry import Registry
    from tests.worlds.model_cases import ModelCase
    from tests.worlds.trained import Sandbox
    from tools.postgres_server import PostgresServer

# The machine is shared: a slow example is no failure, so nothing here judges time.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _UNHURRIED, max_examples=3)
settings.register_profile("dev", _UNHURRIED, max_examples=50)
settings.register_profile("ci", _UNHURRIED, max_examples=20, derandomize=True, print_blob=True)
settings.register_profile(
    "soak", _UNHURRIED, max_examples=1_000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# Read when a boosting library loads: threads that spin while they wait would starve the other test workers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by each process that a test starts: pydantic would look for plugins in all installed packages, 15 ms.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


AS_INSTALLED = Path(__file__).parent / "tests" / "as_installed"
# Behind all others: the entry points of the tests count here, too, and no module is hidden.
sys.path.append(str(AS_INSTALLED))
# As in commands: Feast, pandas and Great Expectations are imported in tests, a million objects that all stay.
_YOUNG_OBJECTS = 20_000


def pytest_configure(config: pytest.Config) -> None:
    """Let each worker collect the files that it runs, if xdist schedules whole files, and look for garbage rarely.

    At the end, the run names the real systems that its tests have used.
    """
    register_late_collection(config)
    register_systems(config)
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import faster, and let the garbage collector leave out what was imported."""
    try:
        with quick_imports():
            return (yield)
    finally:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest: begun last, one would run alone for minutes."""
    longest = {path: longest_timeout(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(scope="session", autouse=True)
def _share_cores(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let work of a low priority run at once: the other workers leave no core idle for minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "use_idle_time", lambda: None)
        if request.config.getoption("markexpr").startswith("not "):  # otherwise time may be judged
            patch.setattr(priority, "_LOW", 0)
            patch.setenv("TESTS_SHARE_CORES", "1")  # as_installed/sitecustomize.py, in new processes
        yield


@pytest.fixture(scope="session", autouse=True)
def _start_as_installed() -> Iterator[None]:
    """Let each process that a test starts find the libraries of users, and none of the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(AS_INSTALLED), prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True)
def _reset_logging() -> Iterator[None]:
    """Leave structlog as it was imported: ``capture_logs`` leaves it configured, which a later test would inherit."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _close_databases() -> Iterator[None]:
    """Leave no idle connection: a copy of a project's files would drop the locks that SQLite has on them."""
    yield
    close_databases()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A private server; each test has a project of its own name."""
    # A short path: the server listens on a socket file in its folder.
    with tempfile.TemporaryDirectory() as folder:
        server = PrivateServer(Path(folder), grace_s=0.5)
        yield server.ensure()
        server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server on a port; each test has a project of its own name, or empties it first, and none ends it."""
    with running(Node(program("valkey"), tmp_path_factory.mktemp("valkey"))) as node:
        yield node


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> KafkaBroker:
    """A broker that all workers of the run share; each test has topics of its own, and none ends it."""
    return named_broker() or shared_broker(tmp_path_factory)


@pytest.fixture(scope="session")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> ApicurioRegistry:
    """A schema registry that all workers of the run share; each test has subjects of its own, and none ends it."""
    from tests.servers.apicurio import shared_registry  # noqa: PLC0415 - not every session needs it

    return shared_registry(tmp_path_factory)


@pytest.fixture(scope="session")
def empty_postgres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a new PostgreSQL server; only ever copied."""
    from tools.postgres_server import make_template  # noqa: PLC0415 - not every session needs it

    return built_once(tmp_path_factory, "postgres", make_template)


@pytest.fixture(scope="session")
def postgres_url(empty_postgres: Path) -> Iterator[str]:
    """A PostgreSQL server; each test uses a schema of its own."""
    from tools.postgres_server import running_postgres  # noqa: PLC0415 - as above

    with running_postgres(empty_postgres) as url:
        yield url


@pytest.fixture
def schemas() -> Iterator[Registry]:
    """An empty schema registry."""
    from tests.servers.registry import schema_registry  # noqa: PLC0415 - as above

    with schema_registry() as served:
        yield served


@pytest.fixture
def own_postgres(empty_postgres: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop; it is not started yet."""
    from tools.postgres_server import PostgresServer  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)  # the server's user must be able to pass through
        server = PostgresServer(Path(folder) / "data", empty_postgres)
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def project_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A new database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'skewless.db'}"
    else:
        server = request.getfixturevalue("postgres_url")
        url = f"{server}{'&' if '?' in server else '?'}schema=test_{uuid.uuid4().hex}"
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorageServer]:
    """A server that speaks S3; each test uses a prefix of its own, and none stops it."""
    from tests.servers.object_storage import running_object_storage  # noqa: PLC0415 - not every session needs it

    with running_object_storage(tmp_path_factory.mktemp("objects")) as server:
        yield server


@pytest.fixture
def bucket_url(object_server: ObjectStorageServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty prefix; the environment has the credentials."""
    from tests.servers.object_storage import CREDENTIALS  # noqa: PLC0415 - not every session needs it

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return object_server.address(uuid.uuid4().hex)


@pytest.fixture(scope="module")
def shared_addresses(request: pytest.FixtureRequest) -> Iterator[ProjectAddresses]:
    """A PostgreSQL and a storage with S3; the environment has the credentials, also that of new processes."""
    from tests.servers.object_storage import CREDENTIALS  # noqa: PLC0415 - not every session needs it

    server: ObjectStorageServer = request.getfixturevalue("object_server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield ProjectAddresses(
            database_url=request.getfixturevalue("postgres_url"), storage_url=server.address(uuid.uuid4().hex)
        )


@pytest.fixture(scope="module", params=["defaults", pytest.param("shared", marks=pytest.mark.soak)])
def addresses(request: pytest.FixtureRequest) -> ProjectAddresses:
    """SQLite and a folder, and with `make soak` PostgreSQL and S3, too."""
    shared: ProjectAddresses | None = request.getfixturevalue("shared_addresses") if request.param == "shared" else None
    return shared or ProjectAddresses()


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster, with the same rules."""
    with cluster(program("valkey"), tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a champion; only ever copied."""
    from tests.worlds.trained import make_project  # noqa: PLC0415 - heavy, and not every session needs it

    return built_once(tmp_path_factory, "trained", make_project)


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Iterator[Sandbox]:
    """A copy with the rows of the online store, whose private server starts on first use."""
    from tests.worlds.trained import opened_copy  # noqa: PLC0415 - as above

    with opened_copy(trained, tmp_path / "p", start=False) as place:
        yield place


@pytest.fixture(scope="session")
def two_versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a declared rollout and a second version; only ever copied."""
    from tests.worlds.rollouts import make_rollout  # noqa: PLC0415 - as above

    return built_once(tmp_path_factory, "two-versions", lambda repo: make_rollout(trained, repo))


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tracking store without runs, whose tables take MLflow a second; only ever copied."""
    from skewless_mlflow.tracker import MLflowTracker  # noqa: PLC0415 - of an extra, and heavy

    folder = tmp_path_factory.mktemp("mlflow")
    MLflowTracker("sqlite:///mlflow.db", folder, "empty")
    return folder / "mlflow.db"


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write what was measured to the terminal, whatever becomes of the test."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stderr.write(f"\n{request.node.name}: {text}\n")

    return write


# Of a module: while it is open, an event loop runs in this thread, and tests elsewhere start loops of their own.
@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    """A browser; each visit has a session of its own."""
    from tests.browser.visitor import Visitor  # noqa: PLC0415 - not every session needs it

    with Visitor.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def lightgbm_binary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelCase]:
    """A binary model of LightGBM in our runtime."""
    from tests.worlds.model_cases import lightgbm_case  # noqa: PLC0415 - imports all libraries of models

    made = lightgbm_case(tmp_path_factory.mktemp("model"), {"objective": "binary"})
    yield made
    made.runtime.close()
