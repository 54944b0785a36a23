"""Questions are scored together where model, arm, time and what is noted of them are the same."""

from __future__ import annotations

from skewless.contract.errors import SkewlessError
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.ticket import Ticket, group_tickets
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
