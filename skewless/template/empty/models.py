"""The models of this project."""

from skewless import ModelSpec

MODELS: list[ModelSpec] = []
