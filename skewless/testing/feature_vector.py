"""The features of one request in a test, and the comparison with the expected values."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from skewless.contract.errors import DefinitionError
from skewless.testing.evidence import FeatureEvidence
from skewless.testing.plain_values import row_text, time_text

_SEPARATOR = "__"


class FeatureVector(Mapping[str, Any]):
    """The features of one request, by name: ``view__feature``, or ``feature`` where only one view has it.

    Numbers are as a model sees them, text is text, None is missing.

    Attributes:
        status: status of the row that each view read, such as ``PRESENT`` or ``EXPIRED``.
    """

    def __init__(
        self,
        *,
        service: str,
        t: int,
        inputs: Mapping[str, Any],
        values: Mapping[str, Any],
        status: Mapping[str, str],
        evidence: FeatureEvidence,
    ) -> None:
        self.status = status
        self._title = f"{service} at {time_text(t)} for {row_text(inputs) or 'no input'}"
        self._values, self._evidence = values, evidence

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - of any feature
        return self._values[self._label(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{self._title}: {row_text(self._values)}>"

    def expect(self, expected: Mapping[str, Any] | None = None, /, **features: Any) -> None:  # noqa: ANN401
        """Compare features with expected values; features that are not named are not compared.

        Args:
            expected: name -> value; ``pytest.approx(...)`` is a value too, None is missing.
            features: more of them, by keyword.

        Raises:
            AssertionError: a feature differs; the message has the expected and the actual value, and the events or
                rows from which it was computed.
            DefinitionError: a name is unknown or belongs to two views.
        """
        __tracebackhide__ = True
        differences = [
            line
            for name, value in {**(expected or {}), **features}.items()
            if not _is_equal(value, self[name])
            for line in self._difference(self._label(name), value)
        ]
        if differences:
            raise AssertionError("\n".join([self._title, *differences]))

    def explain(self, name: str) -> str:
        """Return from which events, rows or fields a feature was computed."""
        return "\n".join(self._evidence.lines(self._label(name)))

    def _difference(self, label: str, expected: object) -> list[str]:
        got = self._values[label]
        lines = [f"  {label}: expected {_shown(expected)}, got {_shown(got)}"]
        return lines + [f"    {line}" for line in self._evidence.lines(label)]

    def _label(self, name: str) -> str:
        if name in self._values:
            return name
        labels = [label for label in self._values if label.partition(_SEPARATOR)[2] == name]
        if len(labels) == 1:
            return labels[0]
        if labels:
            raise DefinitionError("feature", "belongs to several views", value=name, fix=f"use {', '.join(labels)}")
        close = difflib.get_close_matches(name, list(self._values), n=3, cutoff=0.3) or list(self._values)
        raise DefinitionError("feature", "is unknown", value=name, fix=f"use one of {', '.join(close)}")


def _is_equal(expected: object, got: object) -> bool:
    if expected is None or got is None:
        return expected is got
    return bool(expected == got)


def _shown(value: object) -> str:
    return "missing (None)" if value is None else repr(value)
