"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.training.conftest import filled_shop, shop

__all__ = ["filled_shop", "shop"]
