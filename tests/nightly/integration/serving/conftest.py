"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.serving.conftest import windowed

__all__ = ["windowed"]
