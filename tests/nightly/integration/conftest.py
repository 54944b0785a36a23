"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.conftest import _end_workers

__all__ = ["_end_workers"]
