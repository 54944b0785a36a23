"""A call of a command: its project, and its output.

The output is one JSON object or text for people on stdout, everything else on stderr.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

import typer

from skewless.commands.cells import StateCell, colours_of_marks, label, labelled_cell, printable
from skewless.commands.tables import TextTable
from skewless.contract.errors import PlaceError, SkewlessError, StoreError
from skewless.contract.extras import install_fix
from skewless.contract.plain_record import table_fields
from skewless.contract.render import json_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console

    from skewless.commands.progress import OnProgress
    from skewless.project import Project

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
Part = str | TextTable | StateCell


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of a command.

    Args:
        as_json: whether a program reads the result.
        stdout: the process's stdout; libraries that print write to stderr instead.
        exits: closes the project and its parts when the command ends.
        repo: folder of the project.
        engine: of large work; None: as the settings say.
    """

    as_json: bool
    stdout: TextIO
    exits: contextlib.ExitStack
    repo: Path = Path()
    engine: str | None = None

    @cached_property
    def project(self) -> Project:
        """The project of the folder; it is closed when the command ends.

        Raises:
            PlaceError: the folder has no project.
            DefinitionError: a setting is invalid.
        """
        from skewless.project import Project

        settings = {} if self.engine is None else {"engine": self.engine}
        return self.exits.enter_context(contextlib.closing(Project(self.repo, **settings)))

    def end(self, body: Mapping[str, Any] = MappingProxyType({}), *parts: Part, error: SkewlessError | None) -> None:
        """Write a result; its error, if it has one, is part of the body, and ends the command with its exit code."""
        self.show({**body, **(error_body(error) if error else {})}, *parts)
        if error is not None:
            if not self.as_json:
                show_error(sentence(error))
            raise typer.Exit(error.exit_code)

    def show(self, body: Mapping[str, Any], *parts: Part) -> None:
        """Write the result: the body for programs, the parts for people."""
        if self.as_json:
            self.stdout.write(json.dumps(plain(body), ensure_ascii=False, allow_nan=False) + "\n")
        else:
            width, in_colour = terminal_width(self.stdout), has_colours(self.stdout)
            for part in parts:
                self.stdout.writelines(f"{line}\n" for line in _lines(part, width, in_colour=in_colour))
        self.stdout.flush()

    @contextlib.contextmanager
    def working(self, activity: str) -> Iterator[Project]:
        """Show an activity on a terminal's stderr while the block runs; yield the project."""
        project = self.project
        with self.line(activity):
            yield project

    @contextlib.contextmanager
    def line(self, text: str = "") -> Iterator[Callable[[str], None]]:
        """Show one changing line on a terminal's stderr; yield the function that sets it."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _text: None
            return
        with _console(sys.stderr).status(text) as status:
            yield status.update

    @contextlib.contextmanager
    def progress(self, activity: str) -> Iterator[OnProgress]:
        """Show a progress bar on a terminal's stderr; yield the function that advances it."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _activity, _done, _total: None
            return
        from skewless.commands.progress import progress_bar

        with progress_bar(_console(sys.stderr), activity) as on_progress:
            yield on_progress


@contextlib.contextmanager
def open_session(
    repo: Path, *, as_json: bool, engine: str | None = None, is_short: bool = False, log_level: str = "warning"
) -> Iterator[Session]:
    """Run a command's work: an error becomes one sentence on stderr (or JSON on stdout) and an exit code.

    Args:
        repo: folder of the project.
        as_json: whether a program reads the result.
        engine: of large work; None: as the settings say.
        is_short: whether the command ends soon, and can do without the garbage collector (see ``main``).
        log_level: lowest level of log lines on stderr: ``info`` for servers and workers, whose only output is the log.
    """
    from skewless.infra.platform.telemetry.logger import set_log_level

    set_log_level(log_level)
    if not is_short:
        # Modules stay loaded: without this, the collector would begin with a look at all their objects.
        gc.freeze()
        gc.enable()
    exits = contextlib.ExitStack()
    session = Session(as_json=as_json, stdout=sys.stdout, exits=exits, repo=repo, engine=engine)
    try:
        with contextlib.redirect_stdout(sys.stderr), exits:
            yield session
    except SkewlessError as error:
        session.end(error=error)
    except ModuleNotFoundError as error:
        fix = install_fix(error.name or "")
        session.end(error=PlaceError(f"package {error.name!r}", "is not installed", fix=fix))
    except _read_errors() as error:
        fix = "run `skewless doctor` to find the corrupt file"
        session.end(error=StoreError("a file of the project", f"cannot be read: {error}", fix=fix))
    except OSError as error:
        # The reader of stdout has gone; click ends the program without a message.
        if error.errno == errno.EPIPE:
            raise
        session.end(error=_os_error(error))


def _read_errors() -> tuple[type[Exception], ...]:
    """Return the errors of DuckDB for a file that is missing or unreadable; empty if DuckDB is not loaded."""
    duckdb = sys.modules.get("duckdb")
    return () if duckdb is None else (duckdb.IOException,)


def error_body(error: SkewlessError) -> dict[str, Any]:
    """Return an error as programs read it."""
    from skewless.infra.platform.telemetry.redaction import redact

    parts = {name: redact(value) if isinstance(value, str) else value for name, value in error.as_dict().items()}
    return {"error": {"message": sentence(error), "exit_code": error.exit_code, **parts}}


def sentence(error: SkewlessError) -> str:
    """Return an error on one line, without passwords.

    >>> sentence(PlaceError("port 1", "is  in use", fix="choose another"))
    'port 1: is in use. Fix: choose another'
    """
    from skewless.infra.platform.telemetry.redaction import redact

    return redact(" ".join(error.sentence().split()))


def records_table(
    title: str,
    records: Iterable[DataclassInstance | Mapping[str, object]],
    names: Sequence[str] = (),
    *,
    sums: Sequence[str] = (),
) -> TextTable:
    """Return a table of records with durations, times and states as people read them.

    Args:
        records: mappings, or objects of a dataclass.
        names: the fields to show; empty: all fields of the first record, without those marked ``JSON_ONLY``.
        sums: the fields of counts that add up.
    """
    kept = [*records]
    rows = [record if isinstance(record, Mapping) else vars(record) for record in kept]
    names = names or [name for record in kept[:1] for name in table_fields(record)]
    cells = [[labelled_cell(name, row[name]) for name in names] for row in rows]
    return TextTable(title, [label(name) for name in names], cells, sums=[label(name) for name in sums])


def facts_table(title: str, facts: Iterable[tuple[str, object]]) -> TextTable:
    """Return a table of one record: a line for each fact."""
    return TextTable(title, ("", ""), [(label(name), labelled_cell(name, value)) for name, value in facts])


def terminal_width(file: TextIO) -> int | None:
    """Return the width of the terminal behind a file; None: it is not a terminal, and ``COLUMNS`` is not set."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):
        return None


def has_colours(file: TextIO) -> bool:
    """Whether colours and symbols are shown: on a terminal, unless ``NO_COLOR`` is set (https://no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def plain(value: object) -> object:
    """Return a value that JSON can hold: NaN is null, infinities and other objects are text.

    >>> plain({"a": float("nan"), "b": (1, "x"), "c": float("-inf")})
    {'a': None, 'b': [1, 'x'], 'c': '-Infinity'}
    """
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def show_error(text: str) -> None:
    """Write an error to stderr."""
    typer.echo(f"{colours_of_marks('error:', 'bad') if has_colours(sys.stderr) else 'error:'} {text}", err=True)


def _lines(part: Part, width: int | None, *, in_colour: bool) -> Iterator[str]:
    if isinstance(part, TextTable):
        return part.lines(width, in_colour=in_colour)
    return iter([part.line(in_colour=in_colour) if isinstance(part, StateCell) else printable(part)])


def _console(file: TextIO) -> Console:
    from rich.console import Console

    return Console(file=file, markup=False, highlight=False)


def _os_error(error: OSError) -> SkewlessError:
    thing, problem = f"file {error.filename}" if error.filename else "this machine", error.strerror or str(error)
    if error.errno in _FULL:
        return StoreError(thing, f"cannot be written: {problem}", fix="free disk space, then run again")
    return PlaceError(thing, f"cannot be used: {problem}", fix="correct the path or its rights, then run again")
