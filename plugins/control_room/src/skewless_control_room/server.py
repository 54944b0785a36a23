"""The process of the control room."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette

from skewless.contract.errors import DefinitionError, PlaceError
from skewless.contract.loopback import is_loopback
from skewless.infra.platform.access.api_keys import KeyStore
from skewless.project import Project
from skewless.serving.access.gate import Access, follow_keys, open_access
from skewless_control_room.access import Local
from skewless_control_room.app import ControlRoom
from skewless_control_room.provider import Provider, ProviderSignIn
from skewless_control_room.readers import Readers
from skewless_control_room.saved import SavedPages, save_pages
from skewless_control_room.sessions import Sessions
from skewless_control_room.sign_in import SignInPages
from skewless_oidc.provider_keys import is_safe_url

SECRET = "SKEWLESS_UI_CLIENT_SECRET"  # noqa: S105 - its name
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_BYTES = 32


def run_control_room(
    project: Project,
    *,
    host: str | None = None,
    port: int | None = None,
    save: Path | None = None,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> SavedPages | None:
    """Serve the pages of a project until SIGTERM or SIGINT, or write them to a folder.

    Args:
        host, port: None: as the settings say.
        save: the folder; None: serve them.
        on_ready: called with the URL when pages are served.

    Raises:
        PlaceError: the port is in use.
        DefinitionError: people must sign in, and no key or provider can admit them.
    """
    if save is not None:
        return save_pages(project, save)
    host = project.settings.ui_host if host is None else host
    with ExitStack() as stack:
        # Before keys are read: a port in use is the likelier mistake.
        listener = stack.enter_context(closing(_listen(host, project.settings.ui_port if port is None else port)))
        readers = stack.enter_context(closing(Readers(project.repo, project.settings.model_dump(exclude_unset=True))))
        app = _build(project, host, readers, stack)
        tls = {"ssl_certfile": project.settings.tls_cert, "ssl_keyfile": project.settings.tls_key}
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, **tls)  # type: ignore[arg-type]
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if project.settings.tls_cert else "http"
        on_ready(f"{scheme}://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
    return None


def _build(project: Project, host: str, readers: Readers, stack: ExitStack) -> Starlette:
    settings = project.settings
    if is_loopback(host) and settings.auth != "required" and settings.ui_url is None:
        local = Local(secrets.token_urlsafe(_TOKEN_BYTES))
        return ControlRoom(name=project.repo.name, readers=readers, sign_in=local, hosts=_LOCAL_NAMES).app()
    access = stack.enter_context(closing(_open_access(project)))
    is_secure = settings.tls_cert is not None or (settings.ui_url or "").startswith("https:")
    sessions = Sessions(access, is_secure=is_secure)
    own = urlsplit(settings.ui_url or "").hostname
    hosts = frozenset() if own is None else frozenset({own})
    room = ControlRoom(name=project.repo.name, readers=readers, sign_in=sessions, hosts=hosts)
    pages = SignInPages(room=room, sessions=sessions, provider=_open_provider(project), is_secure=is_secure)

    @asynccontextmanager
    async def follow(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(follow_keys(access))
        yield
        task.cancel()

    return room.app(pages.routes(), lifespan=follow)


def _open_access(project: Project) -> Access:
    settings = project.settings
    changed: dict[str, object] = {
        "auth": "required",
        "token_audience": settings.ui_client_id or settings.token_audience,
        "workers": 1,
    }
    if settings.ui_client_id is None:
        changed["token_issuers"] = ()  # tokens of the prediction API are not meant for people
    return open_access(
        settings.model_copy(update=changed | {"rate_limit": "worker", "platform": "none"}),
        KeyStore(project.state),
        project.clock.now_us,
    )


def _open_provider(project: Project) -> ProviderSignIn | None:
    settings = project.settings
    if settings.ui_client_id is None:
        return None
    if len(settings.token_issuers) != 1:
        fix = "name the one provider where people sign in"
        raise DefinitionError("setting 'token_issuers'", "is not one provider, as ui_client_id needs", fix=fix)
    if settings.ui_url is None or not is_safe_url(settings.ui_url):
        fix = "set the https URL of the control room; http is possible only on this machine"
        raise DefinitionError("setting 'ui_url'", "is missing or not safe", value=settings.ui_url, fix=fix)
    return ProviderSignIn(
        Provider(
            issuer=settings.token_issuers[0],
            client_id=settings.ui_client_id,
            client_secret=os.environ.get(SECRET) or None,
            redirect_url=settings.ui_url.rstrip("/") + "/sign-in/callback",
            scopes=settings.ui_client_scopes,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        fix = "choose another with --port or the setting ui_port"
        raise PlaceError(f"port {port} of {host}", f"is not usable: {error.strerror}", fix=fix) from error
