"""Sessions: people sign in with an API key, or at an identity provider, and their browser keeps a random number."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from skewless.contract.errors import AccessError, ScopeError
from skewless.serving.access.caller import Caller
from skewless.serving.access.gate import Access
from skewless_control_room.access import RIGHTS, SignIn, Viewer

COOKIE = "skewless_session"
_BYTES = 32
_MOST, _MOST_OF_KEY = 1_000, 20
_IDLE_S, _END_S = 12 * 3_600.0, 24 * 3_600.0


@dataclass
class _Session:
    """A browser that has signed in.

    Args:
        credential: the key or token, which each request checks again: a revoked key ends its sessions. Only this
            process has it, in memory.
        token: of the forms.
        begun_s: a session ends a day later, however much it is used.
    """

    credential: bytes
    token: str
    begun_s: float
    used_s: float


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
        now = time.monotonic()
        session = _Session(credential, secrets.token_urlsafe(_BYTES), begun_s=now, used_s=now)
        viewer = self._check(credential, session.token)
        # Whoever has one key ends only sessions of that key, until the room is full.
        self._make_room([name for name, item in self._sessions.items() if item.credential == credential], _MOST_OF_KEY)
        self._make_room(list(self._sessions), _MOST)
        name = secrets.token_urlsafe(_BYTES)
        self._sessions[_digest(name)] = session
        # Lax: the redirect from the identity provider must bring it; forms need a token as well.
        reply.set_cookie(COOKIE, name, httponly=True, samesite="lax", secure=self._is_secure, path="/")
        return viewer

    def end(self, request: Request) -> None:
        """End the session of a request, if there is one."""
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def _make_room(self, names: list[bytes], most: int) -> None:
        """End the session that was not used for longest, if there are too many."""
        if len(names) >= most:
            del self._sessions[min(names, key=lambda name: self._sessions[name].used_s)]

    def _find(self, request: Request) -> _Session | None:
        session = self._sessions.get(_digest(request.cookies.get(COOKIE, "")))
        now = time.monotonic()
        if session is not None and (now - session.used_s > _IDLE_S or now - session.begun_s > _END_S):
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
