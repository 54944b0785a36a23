"""Masks secrets in texts: passwords of URLs, API keys, tokens, and credentials in headers."""

from __future__ import annotations

import re

_WORD = re.compile(r"\S+")
# The name stays: it is not secret, and identifies the owner. Parts of a key are masked as well.
_API_KEY = re.compile(r"\b(sk_[a-z0-9-]+_)[\w-]{8,}")
# A JSON Web Token begins with `{"` in base64; its signature is what makes it a secret, but claims are private, too.
_TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*")
_CREDENTIALS = re.compile(r"\b(Bearer|Basic) +[\w.~+/=-]{8,}", re.IGNORECASE)
_HEADER = re.compile(
    r"""\b((?:proxy-)?authorization|x-api-key)(["']?\s*[:=,]\s*(?:b?["'])?)(?:(?:bearer|basic)\s+)?[^\s"',)}\]]+""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text with every secret in it masked.

    >>> redact("Redis at redis://user:p@ss@host:6379/0 is unreachable")
    'Redis at redis://***@host:6379/0 is unreachable'
    >>> redact("sk_web_0123456789abcdef")
    'sk_web_***'
    >>> redact("{'authorization': 'Bearer eyJhbGciOiJI'}")
    "{'authorization': '***'}"
    >>> redact("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3ZWIifQ.c2lnbmF0dXJl is invalid")
    'token eyJ*** is invalid'
    """
    text = _WORD.sub(_mask_password, text) if "://" in text else text
    text = _API_KEY.sub(r"\1***", text)
    text = _TOKEN.sub("eyJ***", text)
    text = _CREDENTIALS.sub(r"\1 ***", text)
    return _HEADER.sub(r"\1\2***", text)


def display_url(url: str) -> str:
    """Return a URL without its password.

    >>> display_url("redis://user:secret@host:6379/0")
    'redis://***@host:6379/0'
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://{rest}"


def _mask_password(match: re.Match[str]) -> str:
    """Return a word; if it is a URL, mask all up to its last @, because a password may contain an @."""
    word = match[0]
    start, end = word.find("://") + len("://"), word.rfind("@")
    return f"{word[:start]}***{word[end:]}" if len("://") <= start <= end else word
