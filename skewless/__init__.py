"""skewless: real-time tree models on a feature store, with offline and online values equal bit for bit.

The names a notebook needs are loaded on first use, so that importing the contract stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.version import __version__

if TYPE_CHECKING:
    from skewless.project import Project

__all__ = ["Project", "__version__"]


def __getattr__(name: str) -> object:
    """Load ``Project`` when it is first asked for (PEP 562)."""
    if name == "Project":
        from skewless.project import Project

        return Project
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
