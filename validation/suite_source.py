"""Suites as the Python of an ``expectations.py``, in lines that a formatter leaves as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from skewless.validation.suggest import Suggested

_WIDTH = 120
_HEAD = '''"""What must hold of the data before use: suggested by `skewless validate`, to be read and changed."""

import great_expectations.expectations as gxe

SUITES = {
'''


def suite_source(suites: Mapping[str, Sequence[Suggested]]) -> str:
    """Return the source text of a module with ``SUITES``, by view or ``labels:MODEL``."""
    parts = [_HEAD]
    for name, suite in suites.items():
        calls = "".join(_call(item, " " * 8) for item in suite)
        parts.append(f"    {_literal(name)}: [\n{calls}    ],\n" if calls else f"    {_literal(name)}: [],\n")
    return "".join([*parts, "}\n"])


def _call(item: Suggested, indent: str) -> str:
    """Return a call on one line, or its arguments on one, or each argument on its own."""
    arguments = [f"{name}={_literal(value)}" for name, value in item.arguments.items()]
    head, deeper = f"{indent}gxe.{item.kind}(", indent + " " * 4
    short, middle = f"{head}{', '.join(arguments)}),", f"{deeper}{', '.join(arguments)}"
    if len(short) <= _WIDTH:
        return f"{short}\n"
    if len(middle) <= _WIDTH:
        return f"{head}\n{middle}\n{indent}),\n"
    lines = [_argument(name, value, deeper) for name, value in item.arguments.items()]
    return f"{head}\n{''.join(lines)}{indent}),\n"


def _argument(name: str, value: object, indent: str) -> str:
    short = f"{indent}{name}={_literal(value)},"
    if len(short) <= _WIDTH or not isinstance(value, list):
        return f"{short}\n"
    items, deeper = [_literal(item) for item in value], indent + " " * 4
    middle = f"{deeper}{', '.join(items)}"
    inner = f"{middle}\n" if len(middle) <= _WIDTH else "".join(f"{deeper}{item},\n" for item in items)
    return f"{indent}{name}=[\n{inner}{indent}],\n"


def _literal(value: Any) -> str:  # noqa: ANN401 - an argument
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if not isinstance(value, str):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False)
    if value.count('"') <= value.count("'"):
        return text
    inner = text[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"
