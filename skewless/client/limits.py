"""How long a client waits."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.errors import DefinitionError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a client waits, in seconds.

    Args:
        connect_s: for a connection to be there, TLS included.
        attempt_s: for the reply to one attempt, connecting included.
        total_s: for a call, with every attempt and pause.
        idle_s: how long a connection may lie unused before a new one is opened instead. It is less than the 5 seconds
            after which the server closes such a connection, so that the two do not meet on the way.
        connections: most connections that an ``AsyncClient`` has open; a ``Client`` has one for each thread at work.

    Raises:
        DefinitionError: one of them is not above zero.
    """

    connect_s: float = 2.0
    attempt_s: float = 10.0
    total_s: float = 30.0
    idle_s: float = 4.0
    connections: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise DefinitionError(f"limit {name!r}", "is not above zero", value=value, fix="give a positive number")
