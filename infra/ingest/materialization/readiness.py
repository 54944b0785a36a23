"""Checks that the online store has all data that a model version reads, and fills in missing data (SEMANTICS 8.5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from skewless.contract.errors import SkewlessError, SourceError, StoreError
from skewless.contract.keys import marker_key, window_marker
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.render import count_text
from skewless.contract.windows.view import WindowView
from skewless.infra.ingest.materialization.materialize import Check, Materializer
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import log_ends
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.store import open_online_store

OnRows = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class VersionReadiness:
    """Checks and completes the data of a plan's views in the online store.

    Args:
        streams: of the project.
        materializer: of the project.
        check: the gate for new rows.
    """

    streams: Streams
    materializer: Materializer
    check: Check | None = None

    def find_missing(self, plan: FeaturePlan, *, behind: bool = True) -> list[str]:
        """Return what the views of a version's plan lack online, one clause each; empty if it can be served.

        Args:
            plan: pinned by the version.
            behind: whether to report rows that are logged and not applied yet; a busy stream always has some.

        Raises:
            StoreError: the store is unavailable.
        """
        with closing(open_online_store(self.streams.redis_url)) as store:
            problems = [self._find_missing_rows(store, plan, view, behind=behind) for view in plan.views]
            problems += [self._find_missing_states(store, plan, view, behind=behind) for view in plan.windows]
        return [item for item in problems if item]

    def prepare(self, plan: FeaturePlan, on_rows: OnRows | None = None) -> list[str]:
        """Materialize and build missing data and apply rows that are behind; return what is still missing.

        Does the same as a materialization run and a stream worker, and may run at the same time as these. If the store
        is unavailable, that is returned too.

        Args:
            plan: pinned by the version.
            on_rows: called with the progress.
        """
        try:
            return (
                self._prepare(plan, on_rows or (lambda _what, _done, _total: None)) if self.find_missing(plan) else []
            )
        except StoreError as error:
            return [f"{error.thing}: {error.problem}"]

    def _prepare(self, plan: FeaturePlan, on_rows: OnRows) -> list[str]:
        problems = self._materialize(plan, on_rows)
        streams = replace(self.streams, plan=plan)
        with closing(open_online_store(streams.redis_url)) as store:
            # Build first, then catch up: a stream worker may not run at all, and events arrive while the states are
            # built.
            Backfiller(streams=streams, store=store).build_missing(
                plan.windows, lambda view, done: on_rows(f"states of {view}", done, None)
            )
            # After the build, which can take long: these rows arrived meanwhile.
            for source in plan.sources:
                streams.catch_up(source.name, store)
        # A busy stream always has some events that are not applied yet, so being behind does not block a version here.
        return problems + self.find_missing(plan, behind=False)

    def _materialize(self, plan: FeaturePlan, on_rows: OnRows) -> list[str]:
        with closing(open_online_store(self.streams.redis_url)) as store:
            missing_views = [view for view in plan.views if self._find_missing_rows(store, plan, view, behind=True)]
        if not missing_views:
            return []
        try:
            reports = self.materializer.run(
                missing_views, self.check, on_step=lambda step: on_rows(f"rows of {step.view}", step.done, step.total)
            )
        # Without the store nothing else can be checked. A broken source concerns only its views, and is reported.
        except StoreError:
            raise
        except SkewlessError as error:
            return [f"{error.thing}: {error.problem}"]
        return [f"view {report.view!r} cannot be updated: {report.problem}" for report in reports if report.problem]

    def _find_missing_rows(self, store: OnlineStore, plan: FeaturePlan, view: View, *, behind: bool) -> str:
        position = store.marker(marker_key(plan.project, view))
        if position is None:
            return f"view {view.name!r} is not in the online store"
        rows = self.materializer.log(view).next_seq() - 1 - position
        if behind and rows > 0:
            return f"view {view.name!r} is {count_text(rows, 'row')} behind"
        return (
            f"view {view.name!r} was not updated while nothing read it"
            if behind and self._has_unread_rows(view)
            else ""
        )

    def _has_unread_rows(self, view: View) -> bool:
        """Return whether its source has rows that no run has read, because nothing needed the view."""
        materializer, needed = self.materializer, self.materializer.needed
        # Scheduled runs update each view that something reads. Only other views can be behind for long.
        if needed is None or view.hash in needed.readers:
            return False
        try:
            return not materializer.is_read(view, materializer.clock.now_us())
        # A source that cannot be read counts as unread: refusing a version is safer than serving old rows.
        except SourceError:
            return True

    def _find_missing_states(self, store: OnlineStore, plan: FeaturePlan, view: WindowView, *, behind: bool) -> str:
        live = self.streams.generations.find_live(view)
        if live is None:
            return f"windowed view {view.name!r} has no states"
        events, ends = 0, log_ends(self.streams.state, view.source)
        names = [window_marker(plan.project, view, live.number, partition) for partition in ends]
        for end, mark in zip(ends.values(), store.read_markers(names), strict=True):
            # A partition without events has no marker.
            if mark is None and end >= 0:
                return f"windowed view {view.name!r} has states that were lost or are still being built"
            events += max(0, end - (-1 if mark is None else mark.position))
        return f"windowed view {view.name!r} is {count_text(events, 'event')} behind" if behind and events else ""
