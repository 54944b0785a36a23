"""The packages that read and write the formats; each is installed only where its format is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from skewless.contract.errors import DefinitionError
from skewless.contract.windows.view import EventFormat

_PACKAGES: Mapping[EventFormat, tuple[str, str]] = {
    "avro": ("fastavro", "fastavro"),
    "protobuf": ("protobuf", "google.protobuf.descriptor_pb2"),
    "json-schema": ("jsonschema-rs", "jsonschema_rs"),
}


def import_format(name: EventFormat) -> Any:  # noqa: ANN401 - an optional dependency
    """Return the module that reads and writes a format other than plain JSON.

    Raises:
        DefinitionError: its package is not installed.
    """
    package, module = _PACKAGES[name]
    try:
        return import_module(module)
    except ImportError as missing:
        raise DefinitionError(
            f"format {name!r}", f"needs the package {package}", fix=f"pip install 'skewless[{name}]'"
        ) from missing
