"""The check of each run of `make test`: a prediction over gRPC has the bits and the error of one over HTTP."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from plugins.grpc.tests.rig import ask
from skewless_grpc.messages import SERVICE
from tests.worlds.infer_messages import http_bodies, payments, raw_message, tensors_of_grpc, tensors_of_http
from tests.worlds.trained import Sandbox, serving

INFER = f"/{SERVICE}/ModelInfer"


def post(url: str, body: bytes, length: int) -> tuple[int, bytes, int | None]:
    """Return status, body and length of the JSON of a reply over HTTP."""
    name = "Inference-Header-Content-Length"
    try:
        with urlopen(Request(f"{url}/v2/models/fraud/infer", body, {name: str(length)})) as reply:  # noqa: S310 - ours
            return int(reply.status), reply.read(), int(reply.headers[name])
    except HTTPError as error:
        return error.code, error.read(), None


def test_both_protocols_give_the_same_bits_and_the_same_error(place: Sandbox) -> None:
    with serving(place.repo, SKEWLESS_GRPC_PORT="0") as server:
        for inputs in (payments(2), payments(2)[1:]):
            _, binary, binary_length = http_bodies(inputs, [])
            status, body, length = post(server.url, binary, binary_length)
            reply = ask(server.grpc_address, INFER, raw_message(inputs, []).SerializeToString())
            if status == 200:
                assert tensors_of_grpc(reply) == tensors_of_http(body, length)
            else:
                assert reply.text == json.loads(body)["error"]
        assert status == 400
