"""Ray as an engine of large work, and features for the rows of a Ray Dataset."""

from __future__ import annotations

from skewless_ray.frames import features

__all__ = ["features"]
