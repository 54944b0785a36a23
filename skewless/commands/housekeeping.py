"""``skewless housekeeping``: remove what need not be kept, merge small files."""

from __future__ import annotations

from pathlib import Path

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table


def housekeeping(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Remove what is older than the keep_ settings say, and merge small log files. Nothing else is touched."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("tidying"):
            done = project.housekeeping().as_dict()
        output.answer(done, table("housekeeping", tuple(done), [tuple(done.values())]))
