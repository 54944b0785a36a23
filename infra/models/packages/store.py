"""The packages of a project: their folder, aliases, decisions and traffic, the key that signs them, trusted keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from skewless.contract.errors import ConflictError, DefinitionError, PackageError
from skewless.contract.settings import Settings
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.approvals import Approvals
from skewless.infra.models.packages.signing import PRIVATE_FILE, Signer, TrustPolicy
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.names import alias_name, check_model_name
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ProjectState

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias.

    Args:
        number: 1 for the first move.
        expect: the version that held the alias before, None for the first move.
        to: the version that holds it now.
        reason: in a sentence.
        at_us: time of the move, UTC microseconds.
    """

    number: int
    expect: str | None
    to: str
    reason: str
    at_us: int


class Aliases:
    """The aliases of a project's models. Each move is a numbered record; the latest one is the value.

    Args:
        packages: of all models.
        database: of the project.
    """

    def __init__(self, packages: PackageFolder, database: Database) -> None:
        self._packages = packages
        self._database = database
        self._moves = Records(database, "alias_move")

    def get(self, model: str, alias: str) -> str | None:
        """Return the version that holds the alias, None if it was never set."""
        last = next(self.read_latest_first(model, alias, most=1), None)
        return last.to if last else None

    def number(self, model: str, alias: str) -> int | None:
        """Return the number of the last move without reading it, None if it never moved."""
        return self._moves.latest_number(alias_name(model, alias)) or None

    def history(self, model: str, alias: str) -> list[AliasMove]:
        """Return every move, oldest first."""
        return list(self.read_latest_first(model, alias))[::-1]

    def read_latest_first(self, model: str, alias: str, most: int | None = None) -> Iterator[AliasMove]:
        """Yield every move, or the latest ones, latest first."""
        name = alias_name(model, alias)
        return (
            _decode(f"alias {name!r}", f"move {number}", lambda move: AliasMove(**move), body)
            for number, body in self._moves.read_latest_first(name, most)
        )

    def previous(self, model: str, alias: str) -> str | None:
        """Return the version that held the alias before the current holder, None if there was none.

        A move back to the previous version undoes a step; every other move adds a step, even to an old version.
        """
        path: list[str] = []
        for move in self.history(model, alias):
            path = path[:-1] if path[-2:-1] == [move.to] else [*path, move.to]
        return path[-2] if len(path) > 1 else None

    def names(self, model: str) -> list[str]:
        """Return the aliases of a model, sorted."""
        prefix = f"{check_model_name(model)}/"
        return [name.removeprefix(prefix) for name in self._moves.names() if name.startswith(prefix)]

    def move(self, model: str, alias: str, *, expect: str | None, to: str, reason: str, now_us: int) -> AliasMove:
        """Move the alias to a version, if the expected version holds it now.

        Args:
            model: the model's name.
            alias: the alias.
            expect: the version that must hold it now; None: no version does.
            to: the new holder, which must exist.
            reason: a sentence for the history.
            now_us: the clock, UTC microseconds.

        Raises:
            ConflictError: another version holds it.
            PackageError: the version does not exist.
            StoreError: the database is unavailable; the alias is unchanged.
        """
        self._packages.check_version(model, to)
        with self._database.transaction():
            holder, number = self.get(model, alias), (self.number(model, alias) or 0) + 1
            if holder != expect:
                held = f"is held by {f'version {holder!r}' if holder else 'no version'}, not by {expect!r}"
                fix = "read its history and decide again"
                raise ConflictError(f"alias {alias!r} of model {model!r}", held, fix=fix)
            move = AliasMove(number=number, expect=expect, to=to, reason=reason, at_us=now_us)
            self._moves.append(alias_name(model, alias), number, asdict(move))
        return move


class Traffic:
    """The traffic policies of a project's models; the latest policy of a model is current.

    Args:
        packages: of all models.
        database: of the project.
    """

    def __init__(self, packages: PackageFolder, database: Database) -> None:
        self._packages = packages
        self._database = database
        self._policies = Records(database, "traffic_policy")

    def get(self, model: str) -> TrafficPolicy | None:
        """Return the current policy, None if the model never had one.

        Raises:
            PackageError: it is corrupt.
        """
        return next(self._read_latest_first(model, most=1), None)

    def number(self, model: str) -> int | None:
        """Return the number of the current policy, without reading it."""
        return self._policies.latest_number(check_model_name(model)) or None

    def history(self, model: str, most: int | None = None) -> list[TrafficPolicy]:
        """Return every policy, or the latest ones, oldest first."""
        return list(self._read_latest_first(model, most))[::-1]

    def replace(self, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        """Replace the expected policy; return the new policy with its number.

        Args:
            expect: number of the policy that must be current; None: the model never had a policy.

        Raises:
            ConflictError: another policy is current.
            PackageError: the policy names a version that does not exist.
            StoreError: the database is unavailable; the policy is unchanged.
        """
        for version in versions_of(policy):
            self._packages.check_version(model, version)
        numbered = replace(policy, number=(expect or 0) + 1)
        with self._database.transaction():
            current = self.number(model)
            if current != expect:
                problem = f"is under policy {current or 'none'}, not {expect or 'none'}"
                raise ConflictError(f"traffic of model {model!r}", problem, fix="read its history and decide again")
            self._policies.append(model, numbered.number, numbered.as_dict())
        return numbered

    def _read_latest_first(self, model: str, most: int | None = None) -> Iterator[TrafficPolicy]:
        records = self._policies.read_latest_first(check_model_name(model), most)
        thing = f"traffic of model {model!r}"
        return (_decode(thing, f"policy {number}", TrafficPolicy.from_dict, body) for number, body in records)


def versions_of(policy: TrafficPolicy) -> list[str]:
    """Return the distinct versions that a policy needs, the champion first.

    >>> versions_of(TrafficPolicy(number=1, phase="ab", champion="000001", challenger="000002", shadows=("000001",)))
    ['000001', '000002']
    """
    versions = (policy.champion, policy.challenger, *policy.shadows)
    return list(dict.fromkeys(version for version in versions if version is not None))


def _decode(thing: str, value: str, decode: Callable[[Any], _T], body: Any) -> _T:  # noqa: ANN401 - any JSON value
    try:
        return decode(body)
    except (TypeError, KeyError, ValueError) as error:
        fix = "restore the database from a backup"
        raise PackageError(thing, f"has a corrupt {value}", fix=fix) from error


class Decisions:
    """The decisions about the versions of a project's models.

    Args:
        database: of the project.
    """

    def __init__(self, database: Database) -> None:
        self._records = Records(database, "decision")

    def add(self, model: str, version: str, decision: Mapping[str, Any], now_us: int) -> None:
        """Store a decision about a version.

        Args:
            decision: plain JSON values.
            now_us: the clock, UTC microseconds.

        Raises:
            StoreError: the database is unavailable; nothing was added.
        """
        self._records.add(check_model_name(model), {"version": version, "at_us": now_us, **decision})

    def read_latest_first(self, model: str, most: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield every decision about a model's versions, or the latest ones, latest first."""
        return (dict(body) for _, body in self._records.read_latest_first(check_model_name(model), most))


@dataclass(frozen=True, kw_only=True)
class PackageStore:
    """The packages of a project, to read and write.

    Args:
        packages: of all models.
        state: has the database with the aliases, decisions and traffic policies.
        trust: the keys whose packages are loaded.
        signer: signs new packages.
        least_approvals: number of people who must approve a version before it is promoted.
    """

    packages: PackageFolder
    state: ProjectState
    trust: TrustPolicy
    signer: Signer
    least_approvals: int = 0

    @classmethod
    def of(cls, state: ProjectState, settings: Settings) -> Self:
        """Return the package store of a state folder, with the signing settings.

        Raises:
            DefinitionError: a value of the setting ``trusted_keys`` is not a key.
        """
        return cls(
            packages=PackageFolder.of(state),
            state=state,
            trust=TrustPolicy(state=state, given=frozenset(settings.trusted_keys)),
            signer=Signer(
                path=state / PRIVATE_FILE if settings.signing_key is None else Path(settings.signing_key),
                own=settings.signing_key is None,
                state=None if settings.trusted_keys else state,
            ),
            least_approvals=settings.approvals,
        )

    @property
    def aliases(self) -> Aliases:
        """The aliases of versions."""
        return Aliases(self.packages, self.state.database)

    @property
    def decisions(self) -> Decisions:
        """The decisions of gates."""
        return Decisions(self.state.database)

    @property
    def approvals(self) -> Approvals:
        """The approvals of versions."""
        return Approvals(self.state.database)

    @property
    def traffic(self) -> Traffic:
        """The traffic policies."""
        return Traffic(self.packages, self.state.database)

    def check_signer(self) -> str:
        """Return the public key that signs new packages; create the state folder's own key if it is missing.

        Raises:
            DefinitionError: the key is not trusted.
            PlaceError: the key cannot be read.
            StoreError: the disk refused to store a new key, or the database is unavailable.
        """
        public = self.signer.prepare()
        if public not in self.trust.trusted_keys():
            fix = "add it to trusted_keys, or name the key of a trusted one in signing_key"
            raise DefinitionError("setting 'signing_key'", "is a key that is not trusted", value=public, fix=fix)
        return public
