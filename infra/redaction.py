"""What must not be shown: the user and password of a URL, wherever it stands in a text."""

from __future__ import annotations

import re

# Up to the last @ of a word: a password may hold one.
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")


def redact(text: str) -> str:
    """Return a text with the user and password of every URL in it masked.

    >>> redact("Redis at redis://user:p@ss@host:6379/0 is away")
    'Redis at redis://***@host:6379/0 is away'
    """
    return _PASSWORD.sub(r"\1***@", text)
