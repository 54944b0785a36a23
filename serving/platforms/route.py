"""The route of predictions on a platform, and its health check: other bodies, the same predictor, log and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from skewless.serving.http.hot_routes import Exchange, HotRoutes, run_handler
from skewless.serving.http.predict_route import Encoder, PredictRoute, encode_reply
from skewless.serving.http.reply import json_response
from skewless.serving.platforms.bodies import CSV, encode_csv, encode_predictions, parse_csv, parse_json
from skewless.serving.platforms.contracts import PlatformContract


class PlatformRoute(PredictRoute):
    """Handles predictions on a platform: the body of ``/predict``, ``instances``, or CSV."""

    def read_request(self, exchange: Exchange) -> tuple[dict[str, Any], Encoder]:
        """Return the fields of a request, and the encoder of its reply: the caller's choice, or as the request is."""
        headers = dict(exchange.headers)
        kind, *parameters = (part.strip() for part in headers.get(b"content-type", b"").lower().split(b";"))
        accepted = headers.get(b"accept", b"").lower()
        if kind == CSV:
            plan = self.models.get(None).plan
            columns = (*plan.join_keys, *plan.request)
            max_rows, has_header = self.predictor.limits.max_batch, b"header=present" in parameters
            rows = parse_csv(exchange.body, columns, max_rows, has_header=has_header)
            return {"rows": rows}, encode_predictions if b"json" in accepted else encode_csv
        body, has_instances = parse_json(exchange.body)
        if CSV in accepted and b"json" not in accepted:
            return body, encode_csv
        return body, encode_predictions if has_instances else encode_reply


def add_platform_routes(
    app: FastAPI, contract: PlatformContract, routes: HotRoutes, ready: Callable[[], Mapping[str, str]]
) -> None:
    """Add the routes of a platform, in front of routes of the same path.

    Args:
        ready: returns the reasons why the server is not ready; empty: it is ready.
    """
    if contract.health is not None:

        @app.get(contract.health, include_in_schema=False)
        async def health() -> Response:
            reasons = ready()
            return json_response({"reasons": dict(reasons)}, 503) if reasons else Response()

    if (path := contract.predict) is not None:

        @app.post(path, include_in_schema=False)
        async def predict(request: Request) -> Response:
            return await run_handler(routes, routes.fixed[path], request)
