"""What a person can do from a page: an action is confirmed, is a method of ``Project``, and is in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skewless.project import Project
from skewless_control_room.access import Right

Values = Mapping[str, str]
"""The fields of the form, as text."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """An action: its button leads to a page that shows what would happen, whose button does it.

    Args:
        name: in its path, ``/actions/NAME``; lower-case letters and hyphens.
        title: on its buttons, an imperative, "Promote".
        right: that it needs.
        fields: fields that the page gives; a missing one is an empty text. A field ``model`` must be a model that the
            person may see.
        preview: says in sentences what it would do; raises as ``run``.
        run: does it, through a method of ``Project``; returns the result in a sentence.
        command: the same on the command line, its fields in braces: ``skewless promote {model} {version}``.
        word: that the person must type before it is done, a field in braces; empty: a click is enough.
        ask: further fields that the person fills in on the confirmation, with their labels.
    """

    name: str
    title: str
    right: Right
    fields: tuple[str, ...]
    preview: Callable[[Project, Values], list[str]]
    run: Callable[[Project, Values], str]
    command: str
    word: str = ""
    ask: Mapping[str, str] = field(default_factory=dict)
