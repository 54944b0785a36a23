"""A project whose programs run on two hosts, behind a load balancer; a third host runs its batch job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.nightly.hosts.host import Host
from tests.nightly.hosts.project import HostProject
from tests.nightly.hosts.services import SERVER_PORT
from tests.nightly.hosts.traffic import ClientTraffic


@dataclass(frozen=True, kw_only=True)
class SpreadProject:
    """A trained project whose programs run on two hosts, behind a load balancer."""

    project: HostProject
    services: dict[str, Host]
    proxy: str

    def traffic(self, seed: int, pause_s: float) -> ClientTraffic:
        """Return clients of the load balancer, and of each server."""
        servers = {f"host {i + 1}": f"http://{host.address}:{SERVER_PORT}" for i, host in enumerate(self.serving)}
        return ClientTraffic(
            events_to=self.proxy,
            targets={**servers, "proxy": self.proxy},
            now_us=self.project.now_us,
            seed=seed,
            pause_s=pause_s,
        )

    @property
    def serving(self) -> Sequence[Host]:
        """The hosts with a server, a stream worker and a scheduler."""
        return self.project.hosts[:2]
