"""Who looks at a page, and what they may do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.requests import Request

from skewless.contract.errors import ScopeError

Right = Literal["view", "operate", "admin"]
RIGHTS: tuple[Right, ...] = ("view", "operate", "admin")


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A person, or a program with a key.

    Args:
        name: of the key, the subject of the identity provider, or ``local`` on loopback without sign-in.
        right: each right contains those before it: ``view``, ``operate``, ``admin``.
        models: the only models that they may see; None: all.
        token: that a form must send back; an attacker's page does not know it.
    """

    name: str
    right: Right
    models: frozenset[str] | None = None
    token: str = ""

    def may(self, right: Right) -> bool:
        """Return whether they have a right.

        >>> Viewer(name="web", right="operate").may("view"), Viewer(name="web", right="operate").may("admin")
        (True, False)
        """
        return RIGHTS.index(self.right) >= RIGHTS.index(right)

    def require(self, right: Right) -> None:
        """Check that they have a right.

        Raises:
            ScopeError: they do not.
        """
        if not self.may(right):
            raise ScopeError(f"user {self.name!r}", f"has no right to {right}", fix=f"sign in with the scope {right}")

    def may_do(self, action_right: Right, fields: Collection[str]) -> bool:
        """Return whether they may do an action with these fields; without ``model``, it concerns all models."""
        return self.may(action_right) and (self.models is None or "model" in fields)

    def require_model(self, fields: Mapping[str, str]) -> None:
        """Check that they may see the model of an action, or all models if it names none.

        Raises:
            ScopeError: they may not.
        """
        if self.models is not None and fields.get("model") not in self.models:
            model = fields.get("model")
            problem = "may not see this model" if model else "may not change what concerns all models"
            raise ScopeError(f"user {self.name!r}", problem, value=model, fix="sign in with a key for all models")


class SignIn(Protocol):
    """Knows who sends a request."""

    def viewer(self, request: Request) -> Viewer | None:
        """Return who sends a request; None: they must sign in first."""
        ...


class Local(SignIn):
    """Takes everybody for the person at this machine: the control room listens on loopback.

    Args:
        token: of all forms.
        right: of that person.
    """

    def __init__(self, token: str, right: Right = "admin") -> None:
        self._viewer = Viewer(name="local", right=right, token=token)

    def viewer(self, request: Request) -> Viewer:  # noqa: ARG002 - the protocol's
        """Return the local person."""
        return self._viewer
