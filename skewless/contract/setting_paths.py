"""Relative paths in the values of settings, made absolute: they are relative to the repo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote, unquote

_FILE_CLOCK = "file:"
_TLS_FILE = re.compile(r"(?<=[?&])(ssl_(?:ca_certs|ca_path|certfile|keyfile)=)([^&#]+)")


def clock_path(setting: str, repo: Path) -> str:
    """Return the setting ``clock`` with an absolute path; a setting without a path is unchanged.

    >>> clock_path("file:clock.bin", Path("/srv/shop"))
    'file:/srv/shop/clock.bin'
    >>> clock_path("system", Path("/srv/shop"))
    'system'
    """
    if not setting.startswith(_FILE_CLOCK):
        return setting
    return _FILE_CLOCK + str(repo / Path(setting.removeprefix(_FILE_CLOCK)).expanduser())


def sqlite_path(url: str, repo: Path) -> str:
    """Return the setting ``database_url`` with an absolute path; the address of a server is unchanged.

    >>> sqlite_path("sqlite:///state.db", Path("/srv/shop"))
    'sqlite:////srv/shop/state.db'
    >>> sqlite_path("postgresql://db/shop", Path("/srv/shop"))
    'postgresql://db/shop'
    """
    prefix = "sqlite:///"
    return prefix + str(repo / Path(url.removeprefix(prefix)).expanduser()) if url.startswith(prefix) else url


def redis_paths(url: str, repo: Path) -> str:
    """Return a Redis URL with absolute paths of its certificate files.

    >>> redis_paths("rediss://h:6379/0?ssl_ca_certs=ca.pem&db=1", Path("/srv/shop"))
    'rediss://h:6379/0?ssl_ca_certs=/srv/shop/ca.pem&db=1'
    """
    return _TLS_FILE.sub(lambda match: match[1] + quote(str(repo / unquote(match[2]))), url)


def kafka_paths(text: str, repo: Path) -> str:
    """Return the setting ``kafka`` with absolute paths of its certificate and keytab files.

    A text that is not a JSON object is returned unchanged: the Kafka client rejects it.

    >>> kafka_paths('{"ssl.ca.location": "ca.pem", "ssl.key.location": "/k.pem"}', Path("/srv/shop"))
    '{"ssl.ca.location": "/srv/shop/ca.pem", "ssl.key.location": "/k.pem"}'
    """
    try:
        options = json.loads(text)
    except ValueError:
        return text
    if not isinstance(options, dict) or not any(map(_is_file, options.items())):
        return text
    return json.dumps(
        {name: str(repo / value) if _is_file((name, value)) else value for name, value in options.items()}
    )


def _is_file(option: tuple[str, object]) -> bool:
    name, value = option
    # `probe` is not a path: librdkafka then searches for the machine's CA certificates.
    return isinstance(value, str) and value != "probe" and name.endswith((".location", ".keytab"))
