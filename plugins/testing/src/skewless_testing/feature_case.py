"""One test case: the events and rows that are given, and the vectors that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import RowParser
from skewless.contract.status import Status
from skewless.contract.vector import Assembler, view_status
from skewless.contract.windows.hops import MILLISECOND
from skewless_testing.feature_vector import FeatureEvidence, FeatureVector
from skewless_testing.records import EventRecords, RowRecords, TimeValue, WindowReads, json_row, time_us


class FeatureCase:
    """Events and rows, and the vectors that a model would see.

    Args:
        plan: of the project.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self.plan = plan
        self._rows = {view.name: RowRecords(view) for view in plan.views}
        self._events = {
            source.name: EventRecords(source, [view for view in plan.windows if view.source == source.name])
            for source in plan.sources
        }
        self._windows = {view.name: WindowReads(view, self._events[view.source]) for view in plan.windows}
        self._assemblers: dict[str, Assembler] = {}

    def events(self, source: str, *events: Mapping[str, Any], known_at: TimeValue | None = None) -> None:
        """Add events of a stream, in the order in which they are accepted.

        Args:
            source: name of the event source.
            events: columns with values; times as datetime, ISO 8601 text or microseconds.
            known_at: when they are accepted; None: each at its event time. Give it to test late events.

        Raises:
            SourceError: the stream would reject one of them.
            DefinitionError: the source is unknown.
        """
        records = self._source(source)
        for event in events:
            records.add(event, _known(known_at))

    def rejection(self, source: str, event: Mapping[str, Any], *, known_at: TimeValue | None = None) -> str | None:
        """Return why a stream would reject an event; None: it would accept it."""
        return self._source(source).rejection(event, _known(known_at))

    def rows(self, view: str, *rows: Mapping[str, Any], known_at: TimeValue | None = None) -> None:
        """Add rows of a feature view's table.

        Args:
            view: name of the feature view.
            rows: keys, features and times with values; a feature that is not given is null.
            known_at: when they are materialized; None: each when it is due by its created time or the view's delay.

        Raises:
            SourceError: a row has an unknown column, no event time or a value of another type.
            DefinitionError: the view is unknown.
        """
        self.plan.view(view)
        for row in rows:
            self._rows[view].add(row, _known(known_at))

    def vector(
        self,
        service: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        at: TimeValue,
        **fields: Any,  # noqa: ANN401 - of any type
    ) -> FeatureVector:
        """Return the features of a service for one request.

        Args:
            service: name of the feature service.
            inputs: entity keys and request fields.
            at: time of the prediction; it is rounded down to a millisecond if the service has windows.
            fields: more inputs, by keyword; together they are all that the service needs.

        Raises:
            RequestError: an input is missing, unknown or of the wrong type.
            DefinitionError: the service is unknown.
        """
        assembler = self._assembler(service)
        plan = assembler.plan
        t = time_us("argument 'at'", at)
        t = t // MILLISECOND * MILLISECOND if plan.windows else t
        given = {**(inputs or {}), **fields}
        parser = RowParser(plan)
        ask = parser.build_rows(parser.parse_rows([json_row(given)]))
        keys = {name: values[0] for name, values in ask.keys.items()}
        records = self._rows | self._windows
        reads = {
            view.name: records[view.name].read([keys[key.name] for key in view.keys], t) for view in plan.all_views
        }
        times = np.array([t], dtype=np.int64)
        columns = assembler.assemble_columns(times, reads, ask.fields)
        status = {view.name: view_status(reads[view.name], t, view.ttl_us) for view in plan.all_views}
        return FeatureVector(
            service=service,
            t=t,
            inputs=given,
            values={label: _plain(column[0]) for label, column in columns.items()},
            status={view: Status(int(each[0])).name for view, each in status.items()},
            evidence=FeatureEvidence(
                plan=plan, rows=self._rows, windows=self._windows, keys=keys, t=t, request=ask.fields
            ),
        )

    def _assembler(self, service: str) -> Assembler:
        if service not in self._assemblers:
            self._assemblers[service] = Assembler(self.plan.select_service(service), {})
        return self._assemblers[service]

    def _source(self, name: str) -> EventRecords:
        if name not in self._events:
            known = ", ".join(self._events) or "none"
            raise DefinitionError("event source", "is unknown", value=name, fix=f"use one of those defined: {known}")
        return self._events[name]


def _known(known_at: TimeValue | None) -> int | None:
    return None if known_at is None else time_us("argument 'known_at'", known_at)


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any feature
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and np.isnan(plain) else plain
