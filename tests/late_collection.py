"""Collection of each test file by the worker that runs it.

With ``--dist loadfile``, every worker of xdist imports all test files and builds all tests, of which it runs a part.
With this plugin, a worker lists the files. It collects a file when it runs it, and reports each of its tests as always.
"""

from __future__ import annotations

import gc
import random
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_LATE = "late_collection"
_MANY_MODULES = 100
_TIMEOUT = re.compile(r"\bmark\.timeout\((\d+)")


def register_late_collection(config: pytest.Config) -> None:
    """Use it in the workers whose controller schedules whole files, and in that controller."""
    if getattr(config, "workerinput", {}).get(_LATE):
        config.pluginmanager.register(LateCollection(), _LATE)
    elif config.getoption("dist", "no") == "loadfile":
        config.pluginmanager.register(Progress(), _LATE)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import faster: the objects of modules live as long as the process."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def longest_timeout(path: Path) -> int:
    """Return the longest time that a test of a file may take by its marks, seconds; 0: none has a mark."""
    return max(map(int, _TIMEOUT.findall(path.read_text(encoding="utf-8"))), default=0)


class LateFile(pytest.Item):
    """A test file that is not collected yet; xdist schedules it like one test."""

    def runtest(self) -> None:
        """Never called: the plugin runs the tests of the file."""
        raise NotImplementedError


class LateCollection:
    """The plugin of a worker."""

    def __init__(self) -> None:
        self._is_late = True
        self._modules = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Item | None:
        """Return an item for a file; None: collect it now, because the command line may name one of its tests."""
        if not self._is_late or parent.session.isinitpath(module_path):
            return None
        nodeid = module_path.relative_to(parent.config.rootpath).as_posix()
        item: pytest.Item = LateFile.from_parent(parent, name=module_path.name, nodeid=nodeid, path=module_path)
        return item

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Keep the files from the options that select tests, such as ``-k``, and shuffle them."""
        files = [item for item in items if isinstance(item, LateFile)]
        items[:] = [item for item in items if not isinstance(item, LateFile)]
        try:
            return (yield)
        finally:
            files.sort(key=lambda file: file.nodeid)
            random.Random(config.getoption("randomly_seed", 0)).shuffle(files)
            files.sort(key=lambda file: -longest_timeout(file.path))
            items.extend(files)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Collect a file and run its tests; None: this is a test."""
        if not isinstance(item, LateFile):
            return None
        session = item.session
        place, tests = session.items.index(item), self._collect(item)
        if not tests:
            session._setupstate.teardown_exact(nextitem)
        for test, following in zip(tests, [*tests[1:], nextitem], strict=False):
            session.items[place] = test  # xdist compares its name with that of the reports
            item.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            if session.shouldfail or session.shouldstop:
                break
        session.items[place] = item
        return True

    def _collect(self, file: LateFile) -> list[pytest.Item]:
        session, self._is_late = file.session, False
        try:
            with quick_imports():
                hook = session.gethookproxy(file.path)
                module = hook.pytest_pycollect_makemodule(module_path=file.path, parent=file.parent)
                tests = list(session.genitems(module))
            session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=tests)
        finally:
            self._is_late = True
        self._leave_out_modules()
        return tests

    def _leave_out_modules(self) -> None:
        """Let the garbage collector skip what files and tests have imported: it would look at all of it again."""
        if len(sys.modules) > self._modules + _MANY_MODULES or not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
            self._modules = len(sys.modules)


class Progress:
    """The plugin of the controller: it estimates the number of tests from the files that have begun."""

    def __init__(self) -> None:
        self._files = 0
        self._begun: set[str] = set()
        self._tests: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401 - xdist has no types
        """Let the worker collect late."""
        node.workerinput[_LATE] = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Count the files."""
        self._files = len({name.partition("::")[0] for name in ids})

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Know the number of tests at the end."""
        self._session = session
        try:
            return (yield)
        finally:
            session.testscollected = len(self._tests)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Estimate the number of all tests."""
        self._tests.add(report.nodeid)
        self._begun.add(report.nodeid.partition("::")[0])
        self._session.testscollected = len(self._tests) * self._files // len(self._begun)
