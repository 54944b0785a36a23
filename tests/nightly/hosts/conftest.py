"""A trained project on three hosts, and one host for each service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.windows.hops import SECOND
from tests.nightly.hosts.host import connected_hosts
from tests.nightly.hosts.project import HostProject
from tests.nightly.hosts.services import start_postgres, start_proxy, start_redis, start_storage
from tests.nightly.hosts.spread import SpreadProject
from tests.servers.object_storage import CREDENTIALS

SCHEDULER_SKEWS_US, SKEWS_US = (0, 5 * SECOND, -5 * SECOND), (80_000, -80_000, 20_000)
SERVICES = ("database", "storage", "store", "proxy")


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SpreadProject]:
    """Three hosts, and one for each service."""
    if shutil.which("haproxy") is None:
        pytest.skip("no haproxy on this machine: `apt-get install haproxy` (Debian) brings it")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with (
        connected_hosts(tmp_path, ("one", "two", "three", *SERVICES)) as hosts,
        tempfile.TemporaryDirectory(prefix="pg-") as folder,
    ):
        Path(folder).chmod(0o755)  # PostgreSQL's user must be able to pass through
        services = dict(zip(SERVICES, hosts[3:], strict=True))
        project = HostProject(
            hosts=hosts[:3],
            database_url=start_postgres(services["database"], Path(folder)),
            storage_url=start_storage(services["storage"]),
            redis_url=start_redis(services["store"]),
            scheduler_skews_us=SCHEDULER_SKEWS_US,
            skews_us=SKEWS_US,
        )
        project.set_up()
        proxy = start_proxy(services["proxy"], hosts[:2])
        spread = SpreadProject(project=project, services=services, proxy=proxy)
        for host in spread.serving:
            for verb in ("serve", "stream", "scheduler"):
                project.start(host, verb)
        yield spread
        for host in hosts:
            host.close()
