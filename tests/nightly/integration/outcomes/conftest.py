"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.outcomes.conftest import outcome_loop

__all__ = ["outcome_loop"]
