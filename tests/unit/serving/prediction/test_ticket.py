"""Questions are scored together where model, arm, time and what is noted of them are the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from skewless.contract.errors import SkewlessError
from skewless.infra.otel.trace import Trace
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.ticket import Ticket, combine_groups, group_tickets
from tests.unit.serving.oip.standing_in import model

MODEL = model()
NOW = 1_000


def ticket(*, narrow: bool = False) -> Ticket:
    told: list[ScoredSlice | SkewlessError] = []
    return Ticket(ScoringRequest(model=MODEL, n=2, rows=[{}, {}], narrow=narrow), told.append)


def test_a_group_whose_tickets_were_dealt_with_meanwhile_is_empty() -> None:
    (group,) = group_tickets([ticket(narrow=True), ticket(narrow=True)], NOW)
    assert (group.n, group.narrow, group.pending is group) == (4, True, True)
    group.claim()
    assert (group.pending.n, list(group.pending.tickets), group.pending.narrow) == (0, [], False)


def test_floats_of_fewer_bits_are_scored_apart_so_that_the_log_can_tell() -> None:
    tickets = [ticket(), ticket(narrow=True), ticket()]
    assert [(group.narrow, group.n) for group in group_tickets(tickets, NOW)] == [(False, 4), (True, 2)]


def test_versions_of_one_model_with_one_plan_and_one_time_are_combined() -> None:
    one, two, three = (model(version=f"00000{i}") for i in (1, 2, 3))
    foreign_model = model(name="other", version="000002")
    same = [one, two, foreign_model]
    arm: Any = SimpleNamespace(has_same_vectors=lambda asked: asked in same)
    traces = [cast("Trace", SimpleNamespace(i=i)) for i in range(2)]
    (base,) = group_tickets([ticket()], NOW)
    champion = replace(base, model=one, arm=arm, traces=traces[:1])
    challenger = replace(base, model=two, arm=arm, tickets=[ticket(), ticket()], traces=traces[1:])
    later = replace(challenger, t=NOW + 1)
    other_plan = replace(base, model=three, arm=arm)
    foreign = replace(base, model=foreign_model, arm=arm)
    unrouted = replace(base, model=one)
    combined = combine_groups([unrouted, champion, later, other_plan, foreign, challenger])
    names = {id(group): name for name, group in locals().items()}
    assert [[names[id(group)] for group in parts] for _, parts in combined] == [
        ["unrouted"],
        ["champion", "challenger"],
        ["later"],
        ["other_plan"],
        ["foreign"],
    ]
    whole = combined[1][0]
    assert list(whole.tickets) == [*champion.tickets, *challenger.tickets]
    assert (list(whole.traces), whole.n) == (traces, 6)
    assert all(group is parts[0] for group, parts in combined if group is not whole)
