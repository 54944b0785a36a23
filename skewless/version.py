"""The version of the program, for layers that must not import its top."""

from __future__ import annotations

__version__ = "0.1.0"
