"""nvForest, which `make setup-nvforest` puts into a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(f"{sys.prefix}-nvforest")
ENVIRONMENT = {"PYTHONPATH": str(FOLDER)}
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="nvForest is for Linux alone")
# The treelite of the tests is newer than that of nvForest, which warns of it and reads its models.
TWO_TREELITES = pytest.mark.filterwarnings("ignore:.*originated from a newer Treelite")


def add_nvforest(patch: pytest.MonkeyPatch) -> None:
    """Let this process import nvForest, after all other packages."""
    assert (FOLDER / "nvforest").is_dir(), "run `make setup-nvforest`"
    patch.setattr(sys, "path", [*sys.path, str(FOLDER)])
