"""The page on which people sign in, with a key or at the identity provider, and the end of their sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from skewless.contract.errors import AccessError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless_control_room.app import HEADERS, ControlRoom, check_origin, is_ours, local_path, read_form
from skewless_control_room.provider import ProviderSignIn
from skewless_control_room.sessions import COOKIE, Sessions

_BROWSER = "skewless_attempt"
_ATTEMPT_S = 600
_MOST_FAILED, _FAILED_S, _MOST_ADDRESSES = 10, 60.0, 10_000
_log = EventLogger()


class FailedAttempts:
    """Failed attempts to sign in, by address: ten in a minute, then none for a while."""

    def __init__(self) -> None:
        self._failed: dict[str, list[float]] = {}

    def wait_s(self, address: str) -> float:
        """Return the seconds until an address may try again; 0: now."""
        failed, now = self._failed.get(address, []), time.monotonic()
        return max(0.0, failed[-_MOST_FAILED] + _FAILED_S - now) if len(failed) >= _MOST_FAILED else 0.0

    def count(self, address: str) -> None:
        """Count a failed attempt."""
        failed = [*self._failed.pop(address, []), time.monotonic()]
        if len(self._failed) >= _MOST_ADDRESSES:  # the one that failed least recently
            del self._failed[next(iter(self._failed))]
        self._failed[address] = failed[-_MOST_FAILED:]


@dataclass(frozen=True, kw_only=True)
class SignInPages:
    """The routes of signing in and out.

    Args:
        room: shows the pages.
        sessions: of the people who have signed in.
        provider: None: only keys are accepted.
        is_secure: whether browsers send cookies only over TLS.
    """

    room: ControlRoom
    sessions: Sessions
    provider: ProviderSignIn | None
    is_secure: bool
    attempts: FailedAttempts = field(default_factory=FailedAttempts)

    def routes(self) -> list[Route]:
        """Return the routes."""
        routes = [
            Route("/sign-in", self.room.guard_open(self._page), methods=["GET"]),
            Route("/sign-in", self.room.guard_open(self._enter), methods=["POST"]),
            Route("/sign-out", self.room.guard_open(self._leave), methods=["POST"]),
        ]
        if self.provider is not None:
            begin, finish = partial(self._begin, self.provider), partial(self._finish, self.provider)
            routes.append(Route("/sign-in/provider", self.room.guard_open(begin)))
            routes.append(Route("/sign-in/callback", self.room.guard_open(finish)))
        return routes

    async def _page(self, request: Request, problem: str = "", status: int = 401) -> Response:
        return self.room.page(
            request,
            "sign_in.html",
            "Sign in",
            None,
            back=local_path(request.query_params.get("to", "/")),
            has_provider=self.provider is not None,
            problem=problem,
            status=status if problem else 200,
        )

    async def _enter(self, request: Request) -> Response:
        form = await read_form(request)
        if not is_ours(request):
            raise AccessError("sign-in", "does not come from our page", fix="open /sign-in and repeat it")
        address = request.client.host if request.client else ""
        if self.attempts.wait_s(address) > 0.0:
            _log.warning("sign_in_refused", problem="too many attempts", address=address)
            return await self._page(request, "Too many attempts: wait a minute", status=429)
        reply = RedirectResponse(local_path(form.get("to", "/")), 303, HEADERS)
        try:
            viewer = self.sessions.start(form.get("key", "").strip().encode(), reply)
        except AccessError as error:
            self.attempts.count(address)
            _log.warning("sign_in_refused", problem=error.problem, address=address)
            return await self._page(request, f"{error.thing} {error.problem}")
        _log.info("signed_in", name=viewer.name, right=viewer.right)
        return reply

    async def _leave(self, request: Request) -> Response:
        form = await read_form(request)
        viewer = self.sessions.viewer(request)
        if viewer is not None:
            check_origin(request, viewer, form)
            self.sessions.end(request)
        reply = RedirectResponse("/sign-in", 303, HEADERS)
        reply.delete_cookie(COOKIE)
        return reply

    async def _begin(self, provider: ProviderSignIn, request: Request) -> Response:
        url, browser = await provider.begin(local_path(request.query_params.get("to", "/")))
        reply = RedirectResponse(url, 303, HEADERS)
        reply.set_cookie(
            *(_BROWSER, browser, _ATTEMPT_S), httponly=True, samesite="lax", secure=self.is_secure, path="/sign-in"
        )
        return reply

    async def _finish(self, provider: ProviderSignIn, request: Request) -> Response:
        token, back = await provider.finish(request.query_params, request.cookies.get(_BROWSER, ""))
        reply = RedirectResponse(back, 303, HEADERS)
        viewer = self.sessions.start(token, reply)
        _log.info("signed_in", name=viewer.name, right=viewer.right)
        return reply
