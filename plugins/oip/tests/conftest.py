"""Fixtures of the core's tests that those of the protocol share."""

from __future__ import annotations

from tests.integration.outcomes.conftest import outcome_loop

__all__ = ["outcome_loop"]
