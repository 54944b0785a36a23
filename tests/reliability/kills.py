"""Processes that kill themselves before or after a chosen durable step, whatever the addresses of their project.

Run as a program with the name of a module, it reads one order a line and forks for each, so that a kill costs no start;
the module's ``act(steps, order)`` follows an order, with pandas if the module has a true ``USES_FEAST``. Each lane of
the program follows orders while the other lanes do. A point is ``NAME#NUMBER``.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from skewless_cloud.storage import CloudStorage

T = TypeVar("T")
Side = Literal["before", "after"]
Case = tuple[str, Side]
Hits = Counter[Case]
SIDES: tuple[Side, ...] = ("before", "after")
ROOT = Path(__file__).parents[2]
_WRITE = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")
# Folders of a project whose files have a kind of their own; the online store writes its own.
_FOLDERS, _ONLINE = ("cache", "staging", "spool", "packages"), "redis"
_TAIL = 4_000


def kind_of(point: str) -> str:
    """Return the name of a point without its number."""
    return point.partition("#")[0]


def ends_of_each_kind(points: Sequence[str]) -> list[str]:
    """Return the first and the last point of each kind of step."""
    kinds: dict[str, list[str]] = {}
    for point in points:
        kinds.setdefault(kind_of(point), []).append(point)
    return list(dict.fromkeys(point for of in kinds.values() for point in (of[0], of[-1])))


def table_of(hits: Mapping[Case, int]) -> str:
    """Return how often each kind of step was hit, as lines."""
    kinds = sorted({kind for kind, _ in hits})
    counts = ((kind, *(hits.get((kind, side), 0) for side in SIDES)) for kind in kinds)
    return "\n".join(f"  {kind:48} before {before:3} after {after:3}" for kind, before, after in counts)


class Steps:
    """Counts the durable steps of this process, and dies at one of them.

    Args:
        point: where to die; empty: nowhere.
        side: of the step.
    """

    def __init__(self, point: str = "", side: Side = "before") -> None:
        self._point = point
        self._side = side
        self._counts = Counter[str]()
        self.passed: list[str] = []

    def wrap(self, owner: Any, name: str, label: Callable[..., str]) -> None:  # noqa: ANN401 - modules and classes
        """Count the calls of a function, under a label made from its arguments; without a label it is no step."""
        real = getattr(owner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - of the function that is wrapped
            kind = label(*arguments)
            run = partial(real, *arguments, **keywords)
            return self._step(kind, run) if kind else run()

        setattr(owner, name, call)

    def watch(self, root: Path) -> None:
        """Count every durable step of a project below a folder: files, uploads, deletions, commits."""
        self.wrap_files(root)
        self.wrap(CloudStorage, "_upload", lambda _, name, __: f"upload-{name.partition('/')[0]}")
        self.wrap(CloudStorage, "delete", lambda *_: "delete-objects")
        self.wrap_commits()

    def wrap_files(self, root: Path) -> None:
        """Count what is written durably below a folder, under the kinds of the files."""

        def label(verb: str, path: Path) -> str:
            kind = _kind(path, root)
            return kind and f"{verb}-{kind}"

        self.wrap(os, "fsync", lambda descriptor: label("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        # A file that may be missing, and is, is no step.
        self.wrap(os, "unlink", lambda path: label("unlink", Path(path)) if Path(path).exists() else "")
        for verb in ("link", "replace", "rename"):
            self.wrap(os, verb, lambda _, target, verb=verb: label(verb, Path(target)))

    def wrap_copies(self, root: Path) -> None:
        """Count copies of files below a folder, under the kinds of the files."""
        self.wrap(shutil, "copyfile", lambda _, target: (kind := _kind(Path(target), root)) and f"copy-{kind}")

    def wrap_commits(self) -> None:
        """Count the commits of the database, under the tables, or kinds of documents and records, that they change."""
        step = self._step

        class CountedConnection(sqlite3.Connection):
            changed: tuple[str, ...] = ()

            def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - of sqlite3
                kind = _commit(self, sql, values, is_open=self.in_transaction)
                run = partial(super().execute, sql, values)
                return step(kind, run) if kind else run()

        sqlite3.connect = partial(sqlite3.connect, factory=CountedConnection)  # type: ignore[assignment]
        import psycopg  # noqa: PLC0415 - loaded before the forks, and not where there is none

        real = psycopg.Connection.execute

        def execute(connection: Any, sql: str, values: Any = None) -> Any:  # noqa: ANN401 - of psycopg
            is_open = connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
            kind = _commit(connection, sql, values or (), is_open=is_open)
            run = partial(real, connection, sql, values)
            return step(kind, run) if kind else run()

        psycopg.Connection.execute = execute  # type: ignore[assignment]

    def _step(self, kind: str, call: Callable[[], T]) -> T:
        self._counts[kind] += 1
        point = f"{kind}#{self._counts[kind]}"
        self.passed.append(point)
        self._die(point, "before")
        result = call()
        self._die(point, "after")
        return result

    def _die(self, point: str, side: Side) -> None:
        if (point, side) == (self._point, self._side):
            os.kill(os.getpid(), 9)


def _kind(path: Path, root: Path) -> str:
    """Return the kind of a file; empty: it is not below the folder, or is of the online store."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else (_ONLINE,)
    if _ONLINE in parts:
        return ""
    if path.is_dir():
        return "folder"
    return next((name for name in _FOLDERS if name in parts), "object" if path.suffix == ".parquet" else "file")


def _commit(connection: Any, sql: str, values: Sequence[Any], *, is_open: bool) -> str:  # noqa: ANN401 - of two kinds
    """Return the kind of the commit that a statement is, empty if it commits nothing; remember what it changes."""
    changed: tuple[str, ...] = getattr(connection, "changed", ())
    # A lease is renewed from time to time, and not at the same step of each run.
    if (match := _WRITE.match(sql)) and not sql.startswith("UPDATE leases SET until_us = "):
        changed += (values[0] if match[1] in {"documents", "records"} else match[1],)
    is_commit = bool(changed) and (sql == "COMMIT" or not is_open)
    connection.changed = () if is_commit or sql == "ROLLBACK" else changed
    return f"commit-{'-'.join(dict.fromkeys(changed))}" if is_commit else ""


class Victims:
    """Follows orders in processes that die at chosen points."""

    def __init__(self, orders: IO[str], answers: IO[str], errors: IO[bytes]) -> None:
        self._orders = orders
        self._answers = answers
        self._errors = errors

    def points(self, **order: Any) -> list[str]:  # noqa: ANN401 - of a module
        """Follow all of an order; return the points that it comes by, in order."""
        status, passed = self._send("", "before", order)
        assert status == 0, self._said()
        return passed

    def killed(self, point: str, side: Side, **order: Any) -> bool:  # noqa: ANN401 - of a module
        """Follow an order until a point, and say whether the process died there rather than end without coming by."""
        status, _ = self._send(point, side, order)
        assert status in {0, -9}, f"{side} {point}: {status}, {self._said()}"
        return status == -9

    def _send(self, point: str, side: Side, order: dict[str, Any]) -> tuple[int, list[str]]:
        self._orders.write(json.dumps([point, side, order]) + "\n")
        self._orders.flush()
        status, passed = json.loads(self._answers.readline() or "[null, []]")
        return status, passed

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-_TAIL:].decode(errors="replace")


@contextmanager
def victims(module: str) -> Iterator[Victims]:
    """Run the program of this module for the length of a block.

    Args:
        module: that follows the orders.
    """
    with lanes(module, 1) as (one,):
        yield one


@contextmanager
def lanes(module: str, n: int) -> Iterator[Sequence[Victims]]:
    """Run the program of this module with n lanes for the length of a block; a thread may use each."""
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        pipes = [(os.pipe(), os.pipe()) for _ in range(n)]
        theirs = [end for orders, answers in pipes for end in (orders[0], answers[1])]
        command = [sys.executable, "-m", "tests.reliability.kills", module, *map(str, theirs)]
        # Ended by the end of its orders, which come to an end first.
        stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=errors, stderr=errors, pass_fds=theirs))
        for end in theirs:
            os.close(end)
        yield [
            Victims(stack.enter_context(os.fdopen(orders[1], "w")), stack.enter_context(os.fdopen(answers[0])), errors)
            for orders, answers in pipes
        ]


def _follow(act: Callable[[Steps, Any], object], line: str) -> tuple[int, list[str]]:
    """Follow an order in a process of its own; load here what it has loaded, so that the next one need not."""
    point, side, order = json.loads(line)
    gc.freeze()  # no look at all objects in each process
    known = set(sys.modules)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            steps = Steps(point, side)
            act(steps, order)
            with os.fdopen(into, "w") as report:
                json.dump([steps.passed, sorted(set(sys.modules) - known)], report)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as report:
        passed, loaded = json.loads(report.read() or "[[], []]")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _load(loaded)
    return status, passed


def _load(modules: Iterable[str]) -> None:
    for name in modules:
        with suppress(ImportError):
            import_module(name)


class _HidesPandas:
    """Hides a library that only orders with Feast need: `pa.array` would import it, half of what is loaded."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - of the import
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


def main(module: str, *ends: int) -> None:
    """Follow orders in each lane until there are no more.

    Args:
        module: that follows the orders.
        ends: of each lane: where orders come from, and where answers go.
    """
    followed = import_module(module)
    act = followed.act
    if not getattr(followed, "USES_FEAST", False):
        sys.meta_path.insert(0, _HidesPandas())
    _load(("pyarrow.compute", "psycopg", "obstore.store"))  # once, and not in each lane
    children = []
    for orders, answers in zip(ends[::2], ends[1::2], strict=True):
        child = os.fork()
        if child == 0:
            for end in set(ends) - {orders, answers}:
                os.close(end)
            with os.fdopen(orders) as lines, os.fdopen(answers, "w") as replies:
                for line in lines:
                    replies.write(json.dumps(_follow(act, line)) + "\n")
                    replies.flush()
            os._exit(0)
        children.append(child)
    for end in ends:
        os.close(end)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
