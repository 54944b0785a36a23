"""The route of predictions on a platform, and its health check: other bodies, the same predictor, log and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response

from skewless.serving.app import ServingContext
from skewless.serving.http.hot_routes import Exchange, HotRoutes, run_handler
from skewless.serving.http.predict_route import Encoder, PredictRoute, encode_reply
from skewless.serving.http.reply import json_response
from skewless_platforms.bodies import CSV, encode_csv, encode_predictions, parse_csv, parse_json
from skewless_platforms.contracts import PlatformContract


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


@dataclass(frozen=True)
class PlatformRoutes:
    """The routes of a contract; see ``AddedRoutes`` of the core."""

    contract: PlatformContract

    @property
    def paths(self) -> frozenset[str]:
        """The paths that only this platform uses."""
        return frozenset(path for path in (self.contract.predict, self.contract.health) if path is not None)

    def hot_routes(self, serving: ServingContext) -> HotRoutes:
        """Return the handler of predictions by its path."""
        path = self.contract.predict
        return HotRoutes({} if path is None else {path: PlatformRoute(**serving.route_arguments).handle})

    def add_to(self, app: FastAPI, routes: HotRoutes, serving: ServingContext) -> None:
        """Add the health check and predictions, outside the OpenAPI document."""
        if self.contract.health is not None:

            @app.get(self.contract.health, include_in_schema=False)
            async def health() -> Response:
                reasons = serving.ready()
                return json_response({"reasons": dict(reasons)}, 503) if reasons else Response()

        if (path := self.contract.predict) is not None:

            @app.post(path, include_in_schema=False)
            async def predict(request: Request) -> Response:
                return await run_handler(routes, routes.fixed[path], request)
