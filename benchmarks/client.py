"""What a call costs the program that makes it: our client, and HTTP libraries without one, against one fixed reply."""

from __future__ import annotations

import sys

from benchmarks import client_entrants
from benchmarks.contestant import Contestant, Race, race
from benchmarks.environments import python_of
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Server, peer_server, running

OURS = "skewless.client"
PEERS = {"threads": ("http.client", "urllib3", "httpx"), "tasks": ("aiohttp", "httpx")}
_STANDARD = {"http.client"}


def run() -> list[Result]:
    """Send one row a call, one call after the other; all must read the same score."""
    server = peer_server("fixed_reply", name="fixed reply", first=client_entrants.request())
    return [row for kind in PEERS for row in _rows(kind, _raced(kind, server))]


def _raced(kind: str, server: Server) -> Race:
    with running(server, core=None) as process:
        arguments = {"url": f"http://127.0.0.1:{process.address.port}", "calls": scaled(3_000)}
        contestants = [
            Contestant(
                name=library,
                entrant=getattr(client_entrants, kind),
                arguments={**arguments, "library": library},
                python=sys.executable if library in {OURS, *_STANDARD} else python_of("http"),
            )
            for library in (OURS, *PEERS[kind])
        ]
        return race(contestants, rounds(7))


def _rows(kind: str, done: Race) -> list[Result]:
    """Return the CPU time of a call, the CPU time of the import and the memory that the import takes."""
    quantities = [
        ("CPU time of a call", "us", 1e6, lambda report: report.cpu_seconds()),
        ("CPU time of the import", "ms", 1e3, lambda report: report.cpu_seconds("import")),
        ("memory of the import", "MB", 1e-6, lambda report: report.facts["import_bytes"]),
    ]
    return [
        Result(
            name=f"client: {kind}, {what}",
            value=done.median(OURS, quantity) * factor,
            unit=unit,
            against=f"{peer} ({done.median(peer, quantity) * factor:.3g} {unit})",
            ratio=done.ratio(OURS, peer, quantity),
        )
        for what, unit, factor, quantity in quantities
        for peer in PEERS[kind]
    ]
