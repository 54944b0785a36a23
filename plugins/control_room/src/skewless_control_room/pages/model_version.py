"""A version of a model: how good is it, and may it answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.approvals import Approval
from skewless.operations.models.versions import read_moves
from skewless.project import Project
from skewless_control_room.model_card import ModelCard, card
from skewless_control_room.model_history import role, traffic_share
from skewless_control_room.page import Known, Page, Part, Query, read_part
from skewless_control_room.pages.model import AliasHolder, seen_state
from skewless_control_room.pages.model_parts import TrainingPart, read_training
from skewless_control_room.pages.models import CHAMPION, check_model

_MOST_MOVES = 50


@dataclass(frozen=True, kw_only=True)
class PlacePart(PlainRecord):
    """The place of a version in the traffic.

    Args:
        role: ``champion``, ``challenger``, ``shadow`` or empty.
        share: share of the entities that it answers, 0 to 1.
        moves: of aliases to it, the latest first, among the latest moves of each alias.
        seen: what an action sends back, so that it is refused if the traffic has changed since.
    """

    role: str
    share: float
    policy: TrafficPolicy | None
    moves: Sequence[AliasHolder]
    seen: str


@dataclass(frozen=True, kw_only=True)
class ApprovalsPart(PlainRecord):
    """The approvals of a version, oldest first, and the number of people that a promotion needs."""

    needed: int
    given: Sequence[Approval]


@dataclass(frozen=True, kw_only=True)
class CardPart(PlainRecord):
    """The model card: its facts, and its text in Markdown."""

    facts: ModelCard
    text: str


@dataclass(frozen=True, kw_only=True)
class VersionPage(PlainRecord):
    """The answer about one version."""

    model: str
    version: str
    place: Part[PlacePart]
    training: Part[TrainingPart]
    approvals: Part[ApprovalsPart]
    card: Part[CardPart]


def read_version(project: Project, query: Query) -> VersionPage:
    """Return the answer about one version; a part that cannot be read leaves the others.

    Raises:
        ScopeError: the viewer may not see the model.
        RequestError: there is no such model or version.
    """
    name, version = check_model(project, query), query.path["version"]
    versions = read_part(lambda: project.packages.list_versions(name))
    if isinstance(versions, Known) and version not in versions.value:
        fix = f"choose one on the page of the model, such as {versions.value[-1]}" if versions.value else "train it"
        raise RequestError(f"model {name!r}", "has no such version", value=version, fix=fix)
    return VersionPage(
        model=name,
        version=version,
        place=read_part(lambda: _place(project, name, version)),
        training=read_part(lambda: read_training(project, name, version)),
        approvals=read_part(lambda: _approvals(project, name, version)),
        card=read_part(lambda: _card(project, name, version)),
    )


def _place(project: Project, name: str, version: str) -> PlacePart:
    seen, policy = seen_state(project, name), project.store.traffic.get(name)
    holder = project.store.aliases.get(name, CHAMPION)
    moves = [
        AliasHolder(alias=move["alias"], version=version, since_us=move["at_us"], reason=move["reason"])
        for move in read_moves(project, name, most=_MOST_MOVES)
        if move["to"] == version
    ]
    return PlacePart(
        role=role(version, policy, holder),
        share=traffic_share(version, policy, holder),
        policy=policy,
        moves=moves,
        seen=seen,
    )


def _approvals(project: Project, name: str, version: str) -> ApprovalsPart:
    return ApprovalsPart(needed=project.settings.approvals, given=project.store.approvals.read(name, version))


def _card(project: Project, name: str, version: str) -> CardPart:
    facts = card(project, name, version)
    return CardPart(facts=facts, text=facts.text)


PAGE = Page(
    path="/models/{model}/versions/{version}",
    question="How good is {model} {version}?",
    template="model_version.html",
    read=read_version,
)
