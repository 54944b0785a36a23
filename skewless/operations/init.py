"""A new project: a template and its sample data, written to a folder."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from skewless.contract.errors import DefinitionError, PlaceError

TemplateName = Literal["fraud", "delay", "churn", "empty"]
TEMPLATES = Path(__file__).parents[1] / "template"
DATA = "data"
_MOST_NAMES = 3

# The first commands of a new project: from its definitions to a prediction.
_COMMANDS: dict[TemplateName, tuple[str, ...]] = {
    "fraud": ("apply", "import", "materialize", "train"),
    "delay": ("apply", "import", "materialize", "train"),
    "churn": ("apply", "materialize", "train"),
    "empty": ("plan", "apply", "materialize", "train", "serve"),
}
_ROWS: dict[TemplateName, str] = {
    "fraud": '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}',
    "delay": '{"line": "line-03", "station": "station-05", "due": "2025-01-31T12:00:00Z"}',
    "churn": '{"customer_id": "c-0007"}',
}


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """A project that was written.

    Args:
        project: its name.
        template: from which it was made.
        files: by their paths in the folder.
        rows: of each file of sample data.
        written: whether it was written; not in a dry run.
    """

    folder: Path
    project: str
    template: TemplateName
    files: list[str]
    rows: dict[str, int]
    written: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "folder": str(self.folder)}

    @property
    def next_commands(self) -> list[str]:
        """Return the commands to run next; the sample projects end with a prediction."""
        repo, row = f"--repo {shlex.quote(str(self.folder))}", _ROWS.get(self.template)
        commands = [f"skewless {name} {repo}" for name in _COMMANDS[self.template]]
        return commands + ([] if row is None else [f"skewless predict {self.template} {repo} --row '{row}'"])


def init(folder: Path, *, template: TemplateName = "fraud", dry_run: bool = False) -> InitReport:
    """Write a new project; a failure leaves nothing.

    Args:
        folder: new or empty.
        template: ``fraud``: a stream with windows, labels, expectations, two models and a rollout; ``delay``: windows
            and a regression; ``churn``: tables and one model; ``empty``: files without definitions or data.
        dry_run: write nothing.

    Raises:
        DefinitionError: the template is unknown.
        PlaceError: the folder is not empty, or cannot be made.
    """
    if template not in get_args(TemplateName):
        known = ", ".join(get_args(TemplateName))
        raise DefinitionError("template", "is unknown", value=template, fix=f"use one of {known}")
    folder = folder.resolve()
    _refuse_used(folder)
    name = project_name(folder.name)
    rows = {} if dry_run else _write(folder, name, template)
    files = [*template_files(template), *(f"{DATA}/{file}" for file in rows)]
    return InitReport(folder=folder, project=name, template=template, files=files, rows=rows, written=not dry_run)


def project_name(folder: str) -> str:
    """Return a folder's name as a name that Feast accepts: letters, digits, underscores.

    >>> [project_name(name) for name in ("my-project", "_x", "ü")]
    ['my_project', 'x', 'project']
    """
    return re.sub(r"[^0-9A-Za-z]+", "_", folder).strip("_") or "project"


def template_files(template: TemplateName) -> list[str]:
    """Return a template's files, by their paths in a project."""
    root = TEMPLATES / template
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if "__pycache__" not in path.parts and path.suffix != ".pyc")


def _write(target: Path, name: str, template: TemplateName) -> dict[str, int]:
    """Write the project; return the rows by file of sample data."""
    from skewless.contract.clock import open_clock
    from skewless.contract.settings import load_settings
    from skewless.operations.sample import write_sample
    from skewless.workspace import CONFIG_FILE

    new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in template_files(template):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TEMPLATES / template / file, target / file)
        config = target / CONFIG_FILE
        config.write_text(re.sub(r"(?m)^project: .*$", f"project: {name}", config.read_text()))
        return write_sample(template, target / DATA, open_clock(load_settings(target).clock).now_us())
    except BaseException:
        _remove(target, folder_too=new)
        raise


def _refuse_used(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise PlaceError(f"path {target}", "is not a folder", fix="name a new or an empty folder")
    if target.is_dir() and (names := sorted(path.name for path in target.iterdir())):
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        raise PlaceError(f"folder {target}", "is not empty", value=shown, fix="name a new or an empty folder")


def _remove(target: Path, *, folder_too: bool) -> None:
    for path in target.iterdir() if target.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if folder_too and target.is_dir():
        target.rmdir()
