"""``skewless demo``: the whole walk on the project in front of you."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering


def demo(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Walk from files to served, proven and retrained models; the last line is one JSON object."""
    with answering(as_json=as_json) as output:
        from skewless.demo import run_demo

        # The stages are shown on stderr; stdout gets the facts, whoever reads.
        facts = run_demo(open_project(output, repo).repo)
        replace(output, as_json=True).answer(facts)
