"""What an evaluation finds."""

from __future__ import annotations

Metrics = dict[str, float | None]
"""Metric -> its value; None where it does not exist on the rows."""
