"""The address of an object storage in a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from skewless.contract.errors import DefinitionError

_SETTING = "setting 'storage_url'"
# Credentials are none of the options: an address is shown and logged.
_OPTIONS = {"s3": ("endpoint", "region"), "gs": ("endpoint",), "az": ("endpoint", "account")}
_HTTP = "http://"


class StorageAddress(NamedTuple):
    """Where objects are stored in a cloud.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        bucket: its name; a container of Azure is one, too.
        prefix: begins the names of all objects, without a ``/`` at its ends; may be empty.
        options: ``endpoint``, ``region`` and ``account``, if the address has them.
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        """Return the address without its options."""
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"

    @property
    def is_plain_http(self) -> bool:
        """Whether the address names an endpoint without TLS."""
        return self.options.get("endpoint", "").startswith(_HTTP)


def parse_address(url: str) -> StorageAddress:
    """Return the address that a URL names.

    >>> str(parse_address("s3://features/shop/?region=eu-west-1"))
    's3://features/shop'

    Raises:
        DefinitionError: the URL is of another kind, or contains credentials or an unknown option.
    """
    parts = urlsplit(url)
    if parts.scheme not in _OPTIONS or not parts.netloc:
        fix = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
        raise DefinitionError(_SETTING, "is not an address we know", value=url.partition(":")[0], fix=fix)
    if "@" in parts.netloc:
        fix = "put them into the environment, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise DefinitionError(_SETTING, "contains credentials", fix=fix)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _OPTIONS[parts.scheme]
    if unknown := sorted(options.keys() - known):
        fix = f"write {' or '.join(known)}; credentials belong into the environment"
        raise DefinitionError(_SETTING, "has an unknown option", value=unknown[0], fix=fix)
    if not options.get("endpoint", _HTTP).startswith((_HTTP, "https://")):
        raise DefinitionError(_SETTING, "has an endpoint without a scheme", fix="write endpoint=https://HOST:PORT")
    return StorageAddress(parts.scheme, parts.netloc, parts.path.strip("/"), options)


def append_project(url: str, project: str) -> str:
    """Return a URL with a project's name after its prefix, so that projects can share a bucket.

    >>> append_project("s3://features/shop/?region=eu-west-1", "fraud")
    's3://features/shop/fraud?region=eu-west-1'
    """
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{project}{mark}{query}"
