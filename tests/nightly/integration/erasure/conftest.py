"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.erasure.conftest import make_repo

__all__ = ["make_repo"]
