"""``skewless scheduler``: the scheduled jobs of a project, by cron line or trigger."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import Json, Repo, open_project, time_option
from skewless.commands.output import command_output
from skewless.operations.readable import duration_text

if TYPE_CHECKING:
    from skewless.infra.jobs.run import Run
    from skewless.operations.scheduler import Invoke

_EXIT_CODES = {"refused": 5}
Once = Annotated[bool, typer.Option("--once", help="Run each job once, now, then stop.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="JOB", help="With --once: this job, or all jobs of this kind.")
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Move the project's clock from job to job until this time."),
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
    """Run the jobs of the project when their cron lines in settings and models are due, until SIGTERM or Ctrl-C."""
    with command_output(as_json=as_json, log_level="info") as output:
        runs = open_project(output, repo).scheduler(
            once=once,
            only=only or (),
            until_us=None if until is None else time_option("--until", until),
            invoke=invoke_in_process(context.find_root().command),
        )
        failures = [run for run in runs if run.state != "done"] if until is None else []
        body = {"jobs": [run.as_dict() | {"ok": run.state == "done"} for run in runs]}
        output.show(body | _first_error(failures), *(map(_line, runs) if runs else ["scheduler: stopped"]))
        if failures:
            raise typer.Exit(_exit_code(failures[0]))


def invoke_in_process(command: Any) -> Invoke:  # noqa: ANN401 - click's group, which typer hides
    """Return a function that runs a command line in this process; it returns the exit code and the text of stdout."""

    def invoke(words: Sequence[str]) -> tuple[int, str]:
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            # Otherwise click would end this process.
            code = command.main(args=list(words), prog_name="skewless", standalone_mode=False)
        return code or 0, stdout.getvalue()

    return invoke


def _line(run: Run) -> StateCell:
    detail = f" in {duration_text(run.seconds or 0)}" + ("" if run.error is None else f"; {run.error}")
    tone = StateCell(run.state).known_tone
    return StateCell(f"{run.id.job}: {run.state}", tone, detail)


def _first_error(runs: Sequence[Run]) -> dict[str, Any]:
    errors = [run.outputs["error"] for run in runs if "error" in run.outputs]
    return {"error": errors[0]} if errors else {}


def _exit_code(run: Run) -> int:
    error = run.outputs.get("error")
    code = error.get("exit_code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else _EXIT_CODES.get(run.state, 1)
