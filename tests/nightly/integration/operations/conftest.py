"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.operations.conftest import clock_of_verbs, place

__all__ = ["clock_of_verbs", "place"]
