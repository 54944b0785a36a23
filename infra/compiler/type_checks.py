"""A faster import of Feast, whose classes have a type check in each method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sys import _getframe
from threading import RLock
from types import FunctionType
from typing import Any

_parsing = RLock()  # in Python 3.11, `ast.parse` fails with a SystemError if threads call it at the same time


@contextmanager
def defer_type_checks() -> Iterator[None]:
    """Let typeguard compile the checks of a method at its first call, for classes that the block defines.

    For each method, ``@typechecked`` parses and compiles a whole module: two thirds of the time of ``import feast``,
    for 240 methods. Calls are checked as before, except those of Feast to its own methods; constructors always are.
    """
    import typeguard  # noqa: PLC0415 - a process that reads an applied plan does not need it

    check: Any = typeguard.typechecked

    def typechecked(target: Any = None, **options: Any) -> Any:  # noqa: ANN401 - the signature of typeguard
        if options or not isinstance(target, type):
            return check(target, **options)
        for name, attribute in list(vars(target).items()):
            if isinstance(attribute, FunctionType | classmethod | staticmethod | property):
                setattr(target, name, _defer_attribute(attribute, target, check))
        return target

    typeguard.typechecked = typechecked
    try:
        yield
    finally:
        typeguard.typechecked = check


def _defer_attribute(attribute: Any, owner: type, check: Callable[[type], type]) -> Any:  # noqa: ANN401 - any attribute
    if isinstance(attribute, classmethod | staticmethod):
        return type(attribute)(_defer(attribute.__func__, owner, check))
    if isinstance(attribute, property):
        functions = (attribute.fget, attribute.fset, attribute.fdel)
        get, put, delete = (function and _defer(function, owner, check) for function in functions)
        return type(attribute)(get, put, delete, attribute.__doc__)
    return _defer(attribute, owner, check)


def _defer(function: Callable[..., Any], owner: type, check: Callable[[type], type]) -> Callable[..., Any]:
    """Return a function that is checked as a method of its class, from its first call on."""

    @functools.cache
    def checked() -> Callable[..., Any]:
        # A class with this method alone: typeguard decides by the class whether a function is a method to check.
        names = {"__module__": owner.__module__, "__qualname__": owner.__qualname__, "method": function}
        with _parsing:
            method: Callable[..., Any] = vars(check(type(owner.__name__, (), names)))["method"]
        return method

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - any method
        caller = _getframe(1).f_globals.get("__name__", "")
        is_own = function.__name__ != "__init__" and caller.startswith("feast.")
        return (function if is_own else checked())(*args, **options)

    return call
