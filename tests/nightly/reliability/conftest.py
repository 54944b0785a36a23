"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.reliability.conftest import node, nodes, started_nodes, world

__all__ = ["node", "nodes", "started_nodes", "world"]
