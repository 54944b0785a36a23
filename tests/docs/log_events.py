"""The events that the code logs, read from its syntax."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TREES = ("serving", "infra", "training", "validation", "skewless", "plugins/*/src", "examples/*/src")
_LEVELS = {"exception": "error", "log": "debug to error"}
_METHODS = {"debug", "info", "warning", "error", "exception", "log"}
_NO_FIELD = "exc_info"


@dataclass(kw_only=True)
class LogEvent:
    """All places that log an event; ``is_open``: some of its fields are known only when it is logged."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    is_open: bool = False


def logged_events() -> dict[str, LogEvent]:
    """Return each event of the code by its name."""
    events: defaultdict[str, LogEvent] = defaultdict(LogEvent)
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text if "_log" in text or "EventLogger" in text else "")
        for call, function in _log_calls(tree):
            for name in _names(call, function, tree):
                event, method = events[name], call.func.attr  # type: ignore[attr-defined]
                event.levels.add(_LEVELS.get(method, method))
                event.fields |= {item.arg for item in call.keywords if item.arg not in (None, _NO_FIELD)}
                event.is_open |= any(item.arg is None for item in call.keywords)
    return dict(events)


def _modules() -> Iterator[Path]:
    for top in _TREES:
        for path in sorted(path for folder in ROOT.glob(top) for path in folder.rglob("*.py")):
            if not any((ROOT / parent).is_symlink() for parent in path.relative_to(ROOT).parents):
                yield path


def _log_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.FunctionDef | None]]:
    """Yield each call of a method of a logger, and the function that it is in."""
    owners = {
        id(node): function
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        is_logger = ast.unparse(owner) in ("_log", "EventLogger()")
        if is_logger and node.func.attr in _METHODS:
            yield node, owners.get(id(node))  # type: ignore[misc]


def _names(call: ast.Call, function: ast.FunctionDef | None, tree: ast.Module) -> Iterator[str]:
    """Yield the event of a call; if its function gets it as an argument, the events of the callers."""
    argument = call.args[-1]
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
        return
    assert function is not None, ast.unparse(call)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == function.name:
            assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
            yield str(node.args[0].value)
