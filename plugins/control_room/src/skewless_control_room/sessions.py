"""Sessions: people sign in with an API key, or at an identity provider, and their browser keeps a random number."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from skewless.contract.errors import AccessError, ScopeError
from skewless.serving.access.caller import Caller
from skewless.serving.access.gate import Access
from skewless_control_room.access import RIGHTS, SignIn, Viewer

COOKIE = "skewless_session"
_BYTES = 32
_MOST = 1_000
_IDLE_S = 12 * 3_600.0


@dataclass
class _Session:
    """A browser that has signed in.

    Args:
        credential: the key or token, which each request checks again: a revoked key ends its sessions. Only this
            process has it, in memory.
        token: of the forms.
    """

    credential: bytes
    token: str
    used_s: float = field(default_factory=time.monotonic)


class Sessions(SignIn):
    """Knows the viewers of sessions, and of programs that send a key.

    Args:
        access: verifies keys and tokens.
        is_secure: whether browsers send the cookie only over TLS.
    """

    def __init__(self, access: Access, *, is_secure: bool) -> None:
        self._access, self._is_secure = access, is_secure
        self._sessions: dict[bytes, _Session] = {}

    def viewer(self, request: Request) -> Viewer | None:
        """Return the viewer of a request; None: nobody has signed in."""
        if "authorization" in request.headers or "x-api-key" in request.headers:
            # A program: it has no session, so it can send no form.
            return _to_viewer(self._access.allow(request.headers.raw, None), "")
        session = self._find(request)
        if session is None:
            return None
        try:
            viewer = self._check(session.credential, session.token)
        except AccessError:
            self.end(request)
            return None
        session.used_s = time.monotonic()
        return viewer

    def start(self, credential: bytes, reply: Response) -> Viewer:
        """Start a session, and put its cookie into a reply.

        Raises:
            AccessError: the credential is invalid.
            ScopeError: it has no right to see pages.
        """
        session = _Session(credential, secrets.token_urlsafe(_BYTES))
        viewer = self._check(credential, session.token)
        if len(self._sessions) >= _MOST:
            del self._sessions[min(self._sessions, key=lambda name: self._sessions[name].used_s)]
        name = secrets.token_urlsafe(_BYTES)
        self._sessions[_digest(name)] = session
        # Lax: the redirect from the identity provider must bring it; forms need a token as well.
        reply.set_cookie(COOKIE, name, httponly=True, samesite="lax", secure=self._is_secure, path="/")
        return viewer

    def end(self, request: Request) -> None:
        """End the session of a request, if there is one."""
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def _find(self, request: Request) -> _Session | None:
        session = self._sessions.get(_digest(request.cookies.get(COOKIE, "")))
        if session is not None and time.monotonic() - session.used_s > _IDLE_S:
            self.end(request)
            return None
        return session

    def _check(self, credential: bytes, token: str) -> Viewer:
        return _to_viewer(self._access.allow([(b"authorization", b"Bearer " + credential)], None), token)


def _digest(name: str) -> bytes:
    # The time of a look-up in a dict must not tell how much of a name is right.
    return sha256(name.encode(errors="replace")).digest()


def _to_viewer(caller: Caller, token: str) -> Viewer:
    for right in reversed(RIGHTS):
        if right in caller.scopes:
            models = None if caller.models is None else frozenset(caller.models)
            return Viewer(name=caller.name, right=right, models=models, token=token)
    fix = "use a key that was created with `skewless keys add NAME --scope view`, operate or admin"
    raise ScopeError(repr(caller), "has no right to see the control room", fix=fix)
