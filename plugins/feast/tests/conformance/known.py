"""What does not pass, and why; docs/feast.md lists the same."""

from __future__ import annotations

BY_FEAST = "Feast's own provider makes messages by way of Arrow, which cannot hold such values: use SkewlessProvider"
NEVER_PUSHED: dict[str, frozenset[str]] = {
    "skewless": frozenset(),
    "local": frozenset({"ZonedTimestamp", "Map", "ScalarMap", "Array(Map)"}),
}
