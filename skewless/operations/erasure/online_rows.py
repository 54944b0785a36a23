"""Deletes the rows and states of an entity from the online store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.keys import KeyCodec
from skewless.contract.windows.view import WindowView
from skewless.infra.online.port import OnlineStore
from skewless.infra.plans.retirement import ViewLifecycle
from skewless.infra.storage.documents import Documents
from skewless.operations.erasure.entity_rows import LoggedEntity
from skewless.workspace import Workspace

_PENDING = "erasures"
_BUILDS = "builds"


@dataclass(frozen=True, kw_only=True)
class OnlineRows:
    """Keeps the online store equal to logs from which an entity's rows are erased.

    Args:
        store: of the project.
    """

    project: Workspace
    store: OnlineStore

    def delete_view(self, partition: str, found: LoggedEntity) -> int:
        """Delete the rows of a view's version; return how many there were.

        Raises:
            StoreError: the store is unavailable.
        """
        needed = self.project.needed.plan
        view = next((each for each in needed.views if each.partition == partition), None)
        if view is None:
            # No reader needs this version. If one does later, the next run fills it from the log.
            return self.store.delete(f"sk:{needed.project}:{partition.rpartition('-')[2]}:")
        codec = KeyCodec(needed.project, view)
        return self.store.remove(_encode(codec, found.values(codec.names)))

    def add_build(self, source: str) -> None:
        """Record that the states of a source have to be built again; call it before its events are erased."""
        with self._pending().edit(_BUILDS, []) as sources:
            sources[:] = sorted({*sources, source})

    def list_builds(self) -> list[str]:
        """Return the sources whose states have to be built again, also those of an interrupted erasure."""
        return list(self._pending().get(_BUILDS) or [])

    def build(self, source: str, found: Sequence[LoggedEntity]) -> tuple[int, int]:
        """Build the states of a source's views again from its log, and delete those of the entity.

        Returns:
            The numbers of built views and of deleted states.

        Raises:
            StoreError: the store or the disk failed; the next erasure of any entity continues.
        """
        streams, built, deleted = self.project.streams, 0, 0
        for view in self.project.needed.plan.windows:
            if view.source == source and streams.generations.list_all(view):
                streams.backfiller(self.store).build(view)
                built += 1
                deleted += self._delete_states(view, found)
        self._retire_unneeded(source)
        with self._pending().edit(_BUILDS, []) as sources:
            sources[:] = [each for each in sources if each != source]
        return built, deleted

    def _delete_states(self, view: WindowView, found: Sequence[LoggedEntity]) -> int:
        """Delete the entity's own states in former generations, which servers may read for a minute."""
        deleted = 0
        for item in self.project.streams.generations.list_all(view):
            if item.stage != "live":
                codec = KeyCodec(self.project.needed.plan.project, view, item.number)
                keys = {key for rows in found for key in _encode(codec, rows.values(codec.names))}
                deleted += self.store.remove(sorted(keys))
        return deleted

    def _retire_unneeded(self, source: str) -> None:
        """Delete the states of views of a source that are not needed any more."""
        needed = self.project.needed
        retirement = self.project.streams.retirement(needed, self.store)
        now_us = self.project.clock.now_us()
        for name, body in Documents(self.project.state.database, "generations").list_all().items():
            view, _, view_hash = name.rpartition("-")
            parts = {part for item in body["generations"] for part in item["partitions"]}
            if view_hash not in needed.readers and any(part.startswith(f"events/{source}/") for part in parts):
                life = ViewLifecycle(name=view, hash=view_hash, source=source, stage="unneeded", since_us=now_us)
                retirement.delete_states(life)

    def _pending(self) -> Documents:
        return Documents(self.project.state.database, _PENDING)


def _encode(codec: KeyCodec, keys: Sequence[Sequence[object]]) -> list[bytes]:
    encoded = (codec.encode(values) for values in keys)  # type: ignore[arg-type]  # keys are integers or texts
    return [key for key in encoded if key is not None]
