"""Fewer examples of the properties whose examples start an engine or write logs, but for the soak.

FEWER: half of them. FEWEST: a quarter, where an example makes whole runs or several compactions.
"""

from __future__ import annotations

from hypothesis import settings

_MANY = 100
_examples = settings().max_examples
FEWER = settings(max_examples=_examples if _examples > _MANY else (_examples + 1) // 2)
FEWEST = settings(max_examples=_examples if _examples > _MANY else (_examples + 3) // 4)
