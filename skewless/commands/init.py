"""``skewless init``: a small working project in a new folder."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import CONFIG_FILE, DryRun, Json, Repo
from skewless.commands.output import answering, table
from skewless.contract.errors import PlaceError

TEMPLATE = Path(__file__).parents[1] / "template"
DATA = "data"
_ROW = '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'
_NEXT = ("apply", "validate", "materialize", "train", f"predict --row {shlex.quote(_ROW)}", "replay", "serve")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The new folder; relative to --repo.")]


def init(folder: Folder = Path(), *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Write a small working project: definitions, a model, expectations and sample data."""
    with answering(as_json=as_json) as output:
        target = (repo / folder).resolve()
        _refuse_used(target)
        name = project_name(target.name)
        rows = {} if dry_run else write_project(target, name)
        files = [*template_files(), *(f"{DATA}/{file}" for file in rows)]
        body = {"folder": str(target), "project": name, "files": files, "rows": rows, "written": not dry_run}
        title = f"project {name!r} {'would be' if dry_run else 'is'} in {target}"
        shown = table(title, ("file", "rows"), [(file, rows.get(file.removeprefix(f"{DATA}/"))) for file in files])
        output.answer(
            {**body, "next": next_commands(target)}, shown, "next:", *(f"  {line}" for line in next_commands(target))
        )


def project_name(folder: str) -> str:
    """Return a folder's name as a name that Feast accepts: letters, digits, underscores.

    >>> [project_name(name) for name in ("my-project", "_x", "ü")]
    ['my_project', 'x', 'project']
    """
    return re.sub(r"[^0-9A-Za-z]+", "_", folder).strip("_") or "project"


def template_files() -> list[str]:
    """Return the template's files, by their paths in a project."""
    found = (path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if "__pycache__" not in path.parts and path.suffix != ".pyc")


def write_project(target: Path, name: str) -> dict[str, int]:
    """Write the template and its sample data; return the rows by file. A failure leaves nothing behind."""
    from skewless.contract.clock import open_clock
    from skewless.contract.settings import load_settings
    from skewless.operations.sample import write_sample

    new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in template_files():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TEMPLATE / file, target / file)
        config = target / CONFIG_FILE
        config.write_text(re.sub(r"(?m)^project: .*$", f"project: {name}", config.read_text()))
        return write_sample(target / DATA, open_clock(load_settings(target).clock).now_us())
    except BaseException:
        _remove(target, folder_too=new)
        raise


def next_commands(target: Path) -> list[str]:
    """Return what to type next."""
    return [f"skewless {verb} --repo {shlex.quote(str(target))}" for verb in _NEXT]


def _refuse_used(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise PlaceError(f"path {target}", "is not a folder", fix="name a new or an empty folder")
    if target.is_dir() and (found := sorted(path.name for path in target.iterdir())):
        raise PlaceError(f"folder {target}", "is not empty", value=_short(found), fix="name a new or an empty folder")


def _short(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _remove(target: Path, *, folder_too: bool) -> None:
    for path in target.iterdir() if target.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if folder_too and target.is_dir():
        target.rmdir()
