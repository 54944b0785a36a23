"""The check of each run of `make test`: the command estimates the applied plan, and refuses a size of nothing."""

from __future__ import annotations

from tests.worlds.command_line import done, run
from tests.worlds.trained import Sandbox


def test_a_size_needs_cores_and_names_the_measured_costs(place: Sandbox) -> None:
    body = done("capacity", "--entities", "1000", "--rows", "100000", "--repo", place.repo)
    (needed,) = (figure for figure in body["figures"] if figure["name"] == "training set")
    assert needed["cores"] == 1
    assert needed["seconds"] > 0
    assert {name for figure in body["figures"] for name in figure["costs"]} <= {cost["name"] for cost in body["costs"]}
    refused = run("capacity", "--entities", "0", "--repo", place.repo, "--json")
    assert refused.code == 6
