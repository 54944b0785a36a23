"""Runs in the clients' environment: calls every route that a generated client has, and says how each answered.

Arguments: the server's URL, an API key of it, a JSON file with the requests; ``skewless_made`` is importable.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the name, status and type of the parsed reply of each call, as JSON."""
    url, key, asked = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    made = importlib.import_module("skewless_made")
    api = importlib.import_module("skewless_made.api")
    client, found = made.AuthenticatedClient(base_url=url, token=key), []
    for package in pkgutil.walk_packages(api.__path__, "skewless_made.api."):
        module: Any = importlib.import_module(package.name)
        if package.ispkg:
            continue
        name = package.name.rpartition(".")[2]
        for words in arguments(module.sync_detailed, asked["names"], asked["bodies"].get(name, [])):
            reply = module.sync_detailed(client=client, **words)
            found.append((name, int(reply.status_code), type(reply.parsed).__name__))
    sys.stdout.write(json.dumps(found))


def arguments(function: Any, names: dict[str, str], bodies: list[Any]) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - generated
    """Yield the arguments of each call: names of the path, and each body where the route takes one."""
    parameters = inspect.signature(function).parameters
    places = {name: value for name, value in names.items() if name in parameters}
    if "body" not in parameters:
        yield places
    for body in bodies:
        yield {**places, "body": typed(function.__annotations__["body"], body)}


def typed(taken: Any, body: Any) -> object:  # noqa: ANN401 - what the client's annotation says
    """Return a body as one of the types that the client takes: its own, or a file of bytes."""
    for kind in getattr(taken, "__args__", (taken,)):
        if isinstance(body, dict) and hasattr(kind, "from_dict"):
            return kind.from_dict(body)
    return importlib.import_module("skewless_made.types").File(payload=body.encode())


main()
