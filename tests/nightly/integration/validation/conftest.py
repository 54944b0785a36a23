"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.validation.conftest import place

__all__ = ["place"]
