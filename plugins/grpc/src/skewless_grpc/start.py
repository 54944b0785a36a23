"""Start of the gRPC port of a worker; grpcio is imported only then."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.serving.access.caller import Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.app import ServingContext, admit
from skewless.serving.doors import DoorContext
from skewless.serving.http.hot_routes import admit_anyone
from skewless.serving.http.tls import TlsFiles
from skewless_oip.routes import OipRoutes

_log = EventLogger()


def open_door(context: DoorContext) -> None:
    """Serve gRPC on its port until the shutdown; without the setting ``grpc_port``, do nothing.

    Raises:
        DefinitionError: a package of the plug-in is not installed.
        PlaceError: the address cannot be used.
    """
    config, serving, http = context.config, context.serving, context.http
    settings = config.settings
    if settings.grpc_port is None:
        return
    # By default, the core logs each handshake that fails: clients could fill the log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from skewless_grpc import server, services  # noqa: PLC0415 - only if the port is set
        from skewless_grpc.infer_route import GrpcInferRoute  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        problem = f"needs the package {(error.name or '').partition('.')[0]}, which is not installed"
        fix = "pip install 'skewless[grpc]', or remove the setting"
        raise DefinitionError("setting 'grpc_port'", problem, fix=fix) from error
    oip = cast("OipRoutes", serving.added["oip"])  # which the package of this plug-in requires
    health = services.HealthService(serving.ready)
    inference = services.InferenceService(
        app=cast("ASGIApp", http.options.app),
        route=oip.infer_route(GrpcInferRoute, serving),
        queue=context.queue,
        admit=partial(admit, serving),
        begin_trace=serving.begin_trace,
    )
    is_open = serving.local and settings.auth != "required"
    reflection = services.reflection_methods(admit_anyone if is_open else partial(_admit_page, serving))
    methods = {**inference.methods(), **health.methods(), **reflection}
    options = server.channel_options(context.limits)
    grpc_server = server.GrpcServer(methods, context.limits, options, on_check=health.notify_watchers)
    grpc_server.start(config.grpc_address, tls_credentials(http.options))
    task = asyncio.create_task(grpc_server.run(context.shutdown, settings.drain_seconds))

    async def close() -> None:
        if not context.shutdown.is_requested:
            task.cancel()  # the server ends by an error
        await asyncio.wait([task])

    context.stack.push_async_callback(close)


def _admit_page(serving: ServingContext, headers: Headers, certificate: PeerCertificate | None) -> Caller:
    """Return the caller, if it may read the protocol; any key may, of those that are for all models."""
    caller = serving.access.allow(headers, None, certificate)
    caller.require_all_models()
    return caller


def tls_credentials(options: uvicorn.Config) -> Any:  # noqa: ANN401 - grpcio has no types
    """Return gRPC credentials of the TLS files of HTTP, which load renewed files for new connections.

    None: without TLS.
    """
    import grpc  # noqa: PLC0415 - only if the port is set

    if options.ssl_certfile is None:
        return None
    files = TlsFiles(options)

    def read() -> Any:  # noqa: ANN401 - grpcio has no types
        files.check()
        authority = None if files.authority is None else files.authority.read_bytes()
        pair = (files.key.read_bytes(), files.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)

    def read_if_changed() -> Any:  # noqa: ANN401 - as above
        """Return the files, if they have changed and match; None: the last ones stay in use.

        A thread of gRPC calls this for each new connection.
        """
        if not files.have_changed():
            return None
        try:
            return read()
        except (DefinitionError, OSError) as error:
            _log.error("tls_certificate_unchanged", error=str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(
        read(), read_if_changed, require_client_authentication=files.authority is not None
    )
