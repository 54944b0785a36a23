"""Spark as an engine of large work, and features for the rows of a Spark DataFrame."""

from __future__ import annotations

from skewless_spark.frames import features

__all__ = ["features"]
