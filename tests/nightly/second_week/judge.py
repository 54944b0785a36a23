"""Compares what was served with the oracle, to the last bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.nightly.second_week.declared import Declared, Latest, View, Window, feature_names
from tests.nightly.second_week.oracle import (
    MOST_IN_FLIGHT,
    History,
    Values,
    asked_values,
    bits,
    latest_values,
    possible,
    transform_value,
    window_values,
)
from tests.nightly.second_week.processes import Read, Row

Versions = dict[tuple[str, str], Declared]


@dataclass
class Oracle:
    """Judges replies.

    Args:
        versions: what each model version was trained on.
        tally: how many values were compared, and what was not and why.
    """

    history: History
    versions: Versions
    counts: Counter[str] = field(default_factory=Counter)

    def differences(self, read: Read, *, strict: bool = False) -> list[str]:
        """Return what is wrong with a reply.

        Args:
            strict: every view must be served as it is, none of them stale or unavailable.
        """
        if read.status != 200:
            return [f"{read.model}: HTTP {read.status}: {read.body}"]
        return [
            wrong
            for row, prediction in zip(read.rows, read.body["predictions"], strict=True)
            for wrong in _Prediction(self, read, row, prediction, strict=strict).differences()
        ]


@dataclass
class _Prediction:
    """One prediction of a reply, and what it should be."""

    judge: Oracle
    read: Read
    row: Row
    said: dict[str, Any]
    strict: bool = field(kw_only=True)

    def differences(self) -> list[str]:
        version = str(self.said.get("version") or self.read.body["version"])
        declared = self.judge.versions[self.read.model, version]
        self.declared, self.place = declared, f"{self.read.model} {version} {self.row['user']}/{self.row['shop']}"
        self.t = int(self.said.get("t_us") or self.read.body["t_us"])
        service = declared.service_of(self.read.model)
        names = [f"{view}__{name}" for view in service.views for name in feature_names(declared.view(view))]
        names += [f"{name}__{declared.transform(name).output}" for name in service.transforms]
        names += ["asked__x_twice", "asked__hour"]
        if list(self.said["features"]) != names:
            return [f"{self.place}: features are {list(self.said['features'])}, not {names}"]
        wrong = [found for view in service.views for found in self._view(declared.view(view))]
        return wrong + self._transforms(service.transforms)

    def _view(self, view: View) -> list[str]:
        said = self.said["views"][view.name]
        if said["status"] == "UNAVAILABLE" or said.get("stale"):
            kind = "unavailable" if said["status"] == "UNAVAILABLE" else "stale"
            self.judge.counts[kind] += len(feature_names(view))
            return [f"{self.place}: view {view.name} is {kind}: {said}"] if self.strict else []
        served = [self.said["features"][f"{view.name}__{name}"] for name in feature_names(view)]
        wanted = self._wanted(view)
        if wanted is None:
            self.judge.counts["in flight"] += len(served)
            return []
        self.judge.counts["compared"] += len(served)
        return self._unlike(view, said["status"], served, wanted)

    def _wanted(self, view: View) -> list[tuple[str, Values]] | None:
        """Return status and values of every state that the read may have met; None: of too many."""
        home = view.source.name if isinstance(view, Window) else view.table
        read = self.read
        certain, open_items = self.judge.history.known(home, view.key, self.row[view.key], read.begin, read.end)
        if len(open_items) > MOST_IN_FLIGHT:
            return None
        states = possible(certain, open_items)
        if isinstance(view, Latest):
            return [latest_values(view, items, self.t) for items in states]
        return [("PRESENT", window_values(view, items, self.t)) for items in states]

    def _unlike(self, view: View, status: str, served: Values, wanted: list[tuple[str, Values]]) -> list[str]:
        got = [bits(value) for value in served]
        if any(status == state and got == [bits(value) for value in values] for state, values in wanted):
            return []
        state, values = wanted[0]
        if status != state:
            return [f"{self.place}: view {view.name} at {self.t} is {status}, not {state}"]
        unequal = [
            f"{self.place}: {view.name}__{name} at {self.t} is {one!r} ({bits(one)}), not {other!r} ({bits(other)})"
            for name, one, other in zip(feature_names(view), served, values, strict=True)
            if bits(one) != bits(other)
        ]
        # With events in flight each value alone may be possible, but not all of them together.
        return unequal or [f"{self.place}: {view.name} at {self.t} is a mixture of states: {served}"]

    def _transforms(self, names: tuple[str, ...]) -> list[str]:
        x, at, features = self.row["x"], self.row["at"], self.said["features"]
        wanted = dict(zip(("asked__x_twice", "asked__hour"), asked_values(x, at), strict=True))
        for name in names:
            item = self.declared.transform(name)
            wanted[f"{name}__{item.output}"] = transform_value(item, x, at, features[f"{item.view}__{item.feature}"])
        self.judge.counts["compared"] += len(wanted)
        return [
            f"{self.place}: {name} at {self.t} is {features[name]!r} ({bits(features[name])}), not {bits(value)}"
            for name, value in wanted.items()
            if bits(features[name]) != bits(value)
        ]
