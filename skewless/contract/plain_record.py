"""Records that programs read as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PlainRecord:
    """A frozen dataclass whose fields, and those of the dataclasses in it, are JSON values."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
