"""Where a verb's answer goes: one JSON object or text for people on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import typer

from skewless.contract.errors import PlaceError, SkewlessError, StoreError
from skewless.contract.render import json_number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from skewless.commands.progress import Tell

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_WIDTH_OF_A_PIPE = 160


@dataclass(frozen=True, kw_only=True)
class Output:
    """One verb's way to answer.

    Args:
        as_json: whether a program reads the answer.
        stdout: the real one; what libraries print goes to stderr.
        until_done: closes what the verb opened.
    """

    as_json: bool
    stdout: TextIO
    until_done: contextlib.ExitStack

    def answer(self, body: Mapping[str, Any], *parts: RenderableType) -> None:
        """Write the answer: the body for programs, the parts for people."""
        if self.as_json:
            self.stdout.write(json.dumps(plain(body), ensure_ascii=False, allow_nan=False) + "\n")
        else:
            console = _console(self.stdout)
            for part in parts:
                console.print(part)
        self.stdout.flush()

    @contextlib.contextmanager
    def working(self, on: str) -> Iterator[None]:
        """Show on a terminal's stderr what is being worked on."""
        if self.as_json or not sys.stderr.isatty():
            yield
            return
        with _console(sys.stderr).status(on):
            yield

    @contextlib.contextmanager
    def line(self) -> Iterator[Callable[[str], None]]:
        """Show on a terminal's stderr one line that changes; yield the function that changes it."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _text: None
            return
        with _console(sys.stderr).status("") as status:
            yield status.update

    @contextlib.contextmanager
    def progress(self, on: str) -> Iterator[Tell]:
        """Show on a terminal's stderr how far a job is; yield the function that it tells."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _what, _done, _total: None
            return
        from skewless.commands.progress import progress_bar

        with progress_bar(_console(sys.stderr), on) as tell:
            yield tell


@contextlib.contextmanager
def answering(*, as_json: bool) -> Iterator[Output]:
    """Run a verb's work: an error becomes one sentence on stderr (or JSON on stdout) and an exit code."""
    until_done = contextlib.ExitStack()
    output = Output(as_json=as_json, stdout=sys.stdout, until_done=until_done)
    try:
        with contextlib.redirect_stdout(sys.stderr), until_done:
            _configure_logging()
            yield output
    except SkewlessError as error:
        _refuse(output, error)
    except ModuleNotFoundError as error:
        _refuse(
            output,
            PlaceError(f"package {error.name!r}", "is not installed", fix="install the requirements of skewless again"),
        )
    except _read_errors() as error:
        fix = "run `skewless doctor`, which names damaged files of the logs"
        _refuse(output, StoreError("a file of the project", f"cannot be read: {error}", fix=fix))
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        _refuse(output, _named(error))


def _read_errors() -> tuple[type[Exception], ...]:
    """Return what DuckDB raises where a file is gone or cannot be read; nothing where DuckDB is not loaded."""
    duckdb = sys.modules.get("duckdb")
    return () if duckdb is None else (duckdb.IOException,)


def error_body(error: SkewlessError) -> dict[str, Any]:
    """Return an error as programs read it."""
    from skewless.infra.host.redaction import redact

    parts = {name: redact(value) if isinstance(value, str) else value for name, value in error.as_dict().items()}
    return {"error": {"message": sentence(error), "exit_code": error.exit_code, **parts}}


def sentence(error: SkewlessError) -> str:
    """Return an error on one line, without passwords.

    >>> sentence(PlaceError("port 1", "is  in use", fix="choose another"))
    'port 1: is in use. Fix: choose another'
    """
    from skewless.infra.host.redaction import redact

    return redact(" ".join(error.sentence().split()))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> RenderableType:
    """Return a table for people; None is shown as a dash."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    numbers = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(columns))]
    for column, right in zip(columns, numbers, strict=True):
        shown.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell(value)) for value in row))
    return Group(Text(title, style="bold"), shown)


def cell(value: object) -> str:
    """Return one value as people read it.

    >>> [cell(value) for value in (None, True, 12_345, 0.123456, "x")]
    ['-', 'yes', '12,345', '0.1235', 'x']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def plain(value: object) -> object:
    """Return a value as JSON can hold it: NaN is null, infinities and other objects are text.

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


def _console(file: TextIO) -> Console:
    from rich.console import Console

    return Console(file=file, markup=False, highlight=False, width=None if file.isatty() else _WIDTH_OF_A_PIPE)


def _configure_logging() -> None:
    from skewless.infra.host.telemetry import configure_logging

    configure_logging()


def _refuse(output: Output, error: SkewlessError) -> None:
    if output.as_json:
        output.answer(error_body(error))
    else:
        typer.echo(f"error: {sentence(error)}", err=True)
    raise typer.Exit(error.exit_code) from None


def _named(error: OSError) -> SkewlessError:
    thing, problem = f"file {error.filename}" if error.filename else "this machine", error.strerror or str(error)
    if error.errno in _FULL:
        return StoreError(thing, f"cannot be written: {problem}", fix="free disk space, then run again")
    return PlaceError(thing, f"cannot be used: {problem}", fix="correct the path or its rights, then run again")
