"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.serving.core.conftest import trained

__all__ = ["trained"]
