"""Facts and verdicts of guardrails in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skewless.contract.readable import number_text, share_text

_NONE = "-"
_MOST_FACTS = 8
_Show = Callable[[float | None], str]


def facts_text(facts: Mapping[str, object]) -> str:
    """Return plain values in a line; nested values have their path as name, and nulls are skipped.

    >>> facts_text({"gain": {"low": 0.0123456, "high": None}, "base_rate": 0.3, "is_new": True})
    'gain low 0.01235, base rate 0.3, is new yes'
    """
    texts = _flat(facts)
    more = f", and {len(texts) - _MOST_FACTS} more" if len(texts) > _MOST_FACTS else ""
    return ", ".join(texts[:_MOST_FACTS]) + more


def guardrail_texts(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the verdict of a guardrail, ``Verdict.as_dict``, as texts.

    They are: its name, the champion, the challenger, the least difference, the limit, the outcome.
    """
    name, least = str(verdict["guardrail"]), verdict["least"]
    arm, difference = _units(name)
    outcome = "BREACHED" if verdict["breached"] else "not decided yet" if least is None else "held"
    arms = (arm(verdict["champion"]), arm(verdict["challenger"]))
    return name, *arms, difference(least), difference(verdict["limit"]), outcome


def _units(guardrail: str) -> tuple[_Show, _Show]:
    """Return the formats of an arm's number, and of a difference between arms."""
    if guardrail in {"errors", "missing"}:
        return share_text, share_text
    return (_milliseconds, _times) if guardrail.startswith("latency") else (number_text, number_text)


def _milliseconds(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{number_text(1e3 * seconds)} ms"


def _times(ratio: float | None) -> str:
    return number_text(ratio) if ratio is None else f"{number_text(ratio)} times"


def _flat(facts: Mapping[str, object], above: str = "") -> list[str]:
    texts: list[str] = []
    for name, value in facts.items():
        words = f"{above}{name.replace('_', ' ')} "
        if isinstance(value, Mapping):
            texts += _flat(value, words)
        elif value is not None:
            texts.append(f"{words}{_fact(value)}")
    return texts


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " and ".join(map(_fact, value))
    return number_text(value) if isinstance(value, float) else str(value)
