"""Threads that read a project for pages, each with its own connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local
from typing import Any, TypeVar

from skewless.contract.errors import BusyError, SkewlessError
from skewless.infra.definitions.plans.applied_plan import read_plan_number
from skewless.infra.log.readers import release_reader
from skewless.infra.platform.access.audit import Actor
from skewless.project import Project
from skewless_control_room.inquiry import Inquiry

T = TypeVar("T")
_THREADS = 4
_MOST_WAITING = 32
_WAIT_S = 1.0


class Readers:
    """Runs the reads of pages, so that a slow one does not hold up the others.

    Args:
        repo: the project's folder.
        settings: values that override its settings.
    """

    def __init__(self, repo: Path, settings: dict[str, Any]) -> None:
        self._repo, self._settings = repo, settings
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="page")
        self._own = local()
        self._opened: list[Project] = []
        self._lock = Lock()
        self._waiting = 0
        self._plan: Inquiry[int] = Inquiry("database", _WAIT_S)

    async def run(self, read: Callable[[Project], T], actor: Actor | None = None) -> T:
        """Return the result of a read, which has a project to itself.

        Args:
            actor: who changes something; None: the read changes nothing.

        Raises:
            BusyError: too many pages wait for a thread.
            SkewlessError: the read's.
        """
        if self._waiting >= _THREADS + _MOST_WAITING:
            raise BusyError("control room", "has too many pages to read", value=self._waiting, fix="try again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, read, actor)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for the reads in progress and close all projects."""
        self._threads.shutdown()
        for project in self._opened:
            project.close()

    def _read(self, read: Callable[[Project], T], actor: Actor | None) -> T:
        project = self._project()
        if actor is not None:
            project.actor = actor
        try:
            return read(project)
        finally:
            release_reader(project.state.database)

    def _project(self) -> Project:
        project: Project | None = getattr(self._own, "project", None)
        if project is None:
            project = self._own.project = Project(self._repo, **self._settings)
            self._own.plan = None
            with self._lock:
                self._opened.append(project)
        try:
            plan = self._plan.ask(lambda: read_plan_number(project.state))
        except SkewlessError:
            return project  # the page says that the database is unavailable
        if plan != self._own.plan:
            project.refresh()
            self._own.plan = plan
        return project
