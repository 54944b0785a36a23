"""``skewless scheduler``: everything that a project does by itself, on cron and on cause."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project, time_option
from skewless.commands.output import answering

if TYPE_CHECKING:
    from skewless.infra.jobs.run import Run
    from skewless.operations.scheduler import Invoke

_BY_STATE = {"refused": 5}
Once = Annotated[bool, typer.Option("--once", help="Run every job once, now, then stop.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="JOB", help="With --once: this job, or all of this kind.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Move the project's clock from job to job up to a time.")
]


def scheduler(
    context: typer.Context,
    *,
    repo: Repo = Path(),
    once: Once = False,
    only: Only = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Run the jobs of the project on the cron lines of the settings and models, until told to stop."""
    with answering(as_json=as_json) as output:
        runs = open_project(output, repo).scheduler(
            once=once,
            only=only or (),
            until_us=None if until is None else time_option("--until", until),
            invoke=inside(context.find_root().command),
        )
        not_done = [run for run in runs if run.state != "done"] if until is None else []
        body = {"jobs": [run.as_dict() | {"ok": run.state == "done"} for run in runs]}
        output.answer(body | _first_error(not_done), *(map(_line, runs) if runs else ["scheduler: stopped"]))
        if not_done:
            raise typer.Exit(_code(not_done[0]))


def _line(run: Run) -> str:
    said = f"{run.id.job}: {run.state} in {run.seconds or 0:.1f} s"
    return said if run.error is None else f"{said}; {run.error}"


def _first_error(runs: Sequence[Run]) -> dict[str, Any]:
    errors = [run.outputs["error"] for run in runs if "error" in run.outputs]
    return {"error": errors[0]} if errors else {}


def inside(command: Any) -> Invoke:  # noqa: ANN401 - click's group, which typer hides
    """Return what runs a verb of the command line in this process and catches its answer."""

    def invoke(words: Sequence[str]) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = command.main(args=list(words), prog_name="skewless", standalone_mode=False)
        return code or 0, said.getvalue()

    return invoke


def _code(run: Run) -> int:
    error = run.outputs.get("error")
    code = error.get("exit_code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else _BY_STATE.get(run.state, 1)
