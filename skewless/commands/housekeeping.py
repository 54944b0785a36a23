"""``skewless housekeeping``: compaction of logs, and retention."""

from __future__ import annotations

from pathlib import Path

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output, facts_table

_MEANINGS = {
    "runs": "runs deleted from the ledger",
    "predictions": "segments of the prediction log expired",
    "quarantine": "quarantined batches deleted",
    "merged": "segments of logs merged",
    "deleted": "unused objects deleted",
    "retired": "unused view versions and former states deleted from the online store",
}


def housekeeping(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Compact logs, and delete what is older than the keep_ settings allow."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("compacting logs"):
            body = project.housekeeping().as_dict()
        output.show(body, facts_table("housekeeping", [(_MEANINGS[name], n) for name, n in body.items()]))
