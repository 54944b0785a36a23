"""Retire views without readers: delete their online states after a grace period (SEMANTICS 8.2).

::

    needed ---> unneeded ---> retired
      ^            |             |      the log keeps the rows: a view that is needed again is built from it
      +------------+-------------+
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from skewless.contract.clock import Clock
from skewless.contract.plain_record import JSON_ONLY
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.log.generations import Generations
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.window_states import lease_key

Stage = Literal["needed", "unneeded", "retired"]
_KIND, _NAME = "view_lifecycles", "project"


@dataclass(frozen=True, kw_only=True)
class ViewLifecycle:
    """The stage of a version of a view.

    Args:
        hash: hash of the view, which identifies the version.
        source: the event source of a windowed view; None: a latest-value view.
        since_us: when it entered the stage, UTC microseconds.
    """

    name: str
    hash: str
    source: str | None = field(metadata=JSON_ONLY)
    stage: Stage
    since_us: int = field(metadata=JSON_ONLY)


def read_lifecycles(state: ProjectState) -> list[ViewLifecycle]:
    """Return all versions of views that were ever needed, with their stages at the last run."""
    try:
        body = Documents(state.database, _KIND).get(_NAME) or {"views": []}
        return [ViewLifecycle(**item) for item in body["views"]]
    except (KeyError, TypeError):
        return []


@dataclass(frozen=True, kw_only=True)
class Retirement:
    """Records which views are needed, and deletes the states of views that were not needed for the grace period.

    Args:
        state: the project's state folder.
        needed: returns the views that are needed now; this process may be suspended between two views.
        grace_us: how long a view without readers stays online, microseconds.
    """

    state: ProjectState
    needed: Callable[[], NeededViews]
    store: OnlineStore
    clock: Clock
    grace_us: int

    def run(self) -> list[ViewLifecycle]:
        """Record the stages of all views and retire due views; return the retired views.

        Raises:
            ConflictError: another process continues, because this one was suspended for too long.
            StoreError: the store, the database or the disk failed; the next run continues.
        """
        leases = Leases(self.state.database)
        with leases.hold("retirement") as lease:
            before = read_lifecycles(self.state)
            lives = [self._advance(life) for life in self._all_lives(before)]
            if lives != before:
                with self.state.database.transaction():
                    leases.check(lease)
                    Documents(self.state.database, _KIND).put(_NAME, {"views": [asdict(life) for life in lives]})
        old = {life.hash: life.stage for life in before}
        return [life for life in lives if life.stage == "retired" and old.get(life.hash) != "retired"]

    def list_due(self) -> list[ViewLifecycle]:
        """Return the views that ``run`` would retire now."""
        return [
            life
            for life in self._all_lives(read_lifecycles(self.state))
            if self._is_due(life) and not self._is_read(life)
        ]

    def _all_lives(self, before: list[ViewLifecycle]) -> Iterator[ViewLifecycle]:
        now_us = self.clock.now_us()
        yield from before
        old = {life.hash for life in before}
        for view in self.needed().plan.all_views:
            if view.hash not in old:
                source = view.source if isinstance(view, WindowView) else None
                yield ViewLifecycle(name=view.name, hash=view.hash, source=source, stage="needed", since_us=now_us)

    def _advance(self, life: ViewLifecycle) -> ViewLifecycle:
        now_us, needed = self.clock.now_us(), life.hash in self.needed().readers
        if needed:
            return life if life.stage == "needed" else replace(life, stage="needed", since_us=now_us)
        if life.stage == "needed":
            return replace(life, stage="unneeded", since_us=now_us)
        if self._is_due(life) and self.delete_states(life):
            return replace(life, stage="retired", since_us=now_us)
        return life

    def _is_due(self, life: ViewLifecycle) -> bool:
        is_late = life.stage == "unneeded" and self.clock.now_us() - life.since_us >= self.grace_us
        needed = self.needed()
        # The views of an altered package are unknown: they could be any views.
        return is_late and life.hash not in needed.readers and not needed.unreadable

    def _is_read(self, life: ViewLifecycle) -> bool:
        """Return whether a server reads a view's states: servers renew a lease for each generation that they read."""
        project = self.needed().plan.project
        numbers = [] if life.source is None else [item.number for item in Generations(self.state).list_all(life)]
        return any(self.store.get([lease_key(project, life, number) for number in numbers]))

    def delete_states(self, life: ViewLifecycle) -> bool:
        """Delete a view's rows or states; return False if a server still reads them, or they are needed again."""
        project = self.needed().plan.project
        if life.source is None:
            self.store.delete(f"sk:{project}:{life.hash}:")
            return True
        generations = Generations(self.state)
        before, pointer = generations.list_all(life), [f"sk:{project}:{life.hash}:generation".encode()]
        read = self.store.get(pointer)
        # Wait until no worker applies events to these states: a worker could write them again after the deletion.
        with generations.hold_apply_lock(life.source, alone=True):
            if self._is_read(life) or life.hash in self.needed().readers:
                return False
            for item in before:
                generations.give_up(life, item.number)
        # Not those of a new generation, if the view is needed again: this process may have been suspended.
        self.store.replace(pointer, read, [b""])
        for item in before:
            self.store.delete(f"sk:{project}:{life.hash}.{item.number}:")
            generations.retire(life, item.number)
        return True
