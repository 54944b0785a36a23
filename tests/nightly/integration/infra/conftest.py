"""The fixtures of the daily tests of this folder."""

from __future__ import annotations

from tests.integration.infra.conftest import killed_state, latest, log_state, partition_log, victims

__all__ = ["killed_state", "latest", "log_state", "partition_log", "victims"]
