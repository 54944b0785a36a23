"""Questions are scored together where time and options are the same and versions differ only in their scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from skewless.contract.errors import SkewlessError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.group import Group, group_tickets
from skewless.serving.prediction.routing import Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.ticket import Ticket
from tests.unit.serving.standing_in import model

ONE, TWO = model(), model(version="000002")
NOW = 1_000


def make_arm(lead: Any = None) -> Any:  # noqa: ANN401 - a fake arm
    arm = SimpleNamespace(shadows=())
    arm.lead = lead or arm
    return arm


def ticket(of: ServedModel = ONE, n: int = 2, *, arm: Any = None, narrow: bool = False, **options: Any) -> Ticket:  # noqa: ANN401
    told: list[ScoredSlice | SkewlessError] = []
    request = ScoringRequest(model=of, n=n, rows=[{}] * n, narrow=narrow, arm=arm, options=Options(**options))
    return Ticket(request, told.append)


def members(groups: list[Group]) -> list[list[list[Ticket]]]:
    return [[list(part.tickets) for part in group.parts] for group in groups]


def test_of_a_group_the_tickets_without_a_reply_remain() -> None:
    (group,) = group_tickets([ticket(narrow=True), ticket(narrow=True)], NOW)
    assert (group.n, group.narrow, group.pending is group) == (4, True, True)
    group.tickets[0].is_waiting = False
    rest = group.pending
    assert rest is not None
    assert (rest.n, list(rest.tickets), rest.narrow) == (2, [group.tickets[1]], True)
    group.claim()
    assert group.pending is None


def test_floats_of_fewer_bits_are_scored_apart_so_that_the_log_can_tell() -> None:
    tickets = [ticket(), ticket(narrow=True), ticket()]
    assert [(group.narrow, group.n) for group in group_tickets(tickets, NOW)] == [(False, 4), (True, 2)]


def test_versions_of_one_lead_are_one_group() -> None:
    champion = make_arm()
    challenger, stranger = make_arm(champion), make_arm()
    one, two, three = ticket(arm=champion), ticket(TWO, 3, arm=challenger), ticket(arm=champion)
    unrouted, apart, later = ticket(), ticket(TWO, arm=stranger), ticket(TWO, arm=challenger, as_of=0)
    groups = group_tickets([unrouted, two, one, apart, later, three], NOW)
    assert members(groups) == [[[unrouted]], [[two], [one, three]], [[apart]], [[later]]]
    assert [group.t for group in groups] == [NOW, NOW, NOW, 0]
    both = groups[1]
    assert [(part.model, part.arm, part.start, part.stop) for part in both.parts] == [
        (TWO, challenger, 0, 3),
        (ONE, champion, 3, 7),
    ]
    assert (both.n, both.model, list(both.tickets)) == (7, TWO, [two, one, three])
    assert members(both.smaller_groups) == [[[two]], [[one, three]]]
    assert members(both.smaller_groups[1].smaller_groups) == [[[one]], [[three]]]
    two.is_waiting = one.is_waiting = False
    rest = both.pending
    assert rest is not None
    assert (members([rest]), rest.model, rest.n) == ([[[three]]], ONE, 2)


def test_further_results_of_versions_have_shapes_of_their_own() -> None:
    champion = make_arm()
    tickets = [ticket(arm=champion, extras=("leaves",)), ticket(TWO, arm=make_arm(champion), extras=("leaves",))]
    assert members(group_tickets(tickets, NOW)) == [[[each]] for each in tickets]
