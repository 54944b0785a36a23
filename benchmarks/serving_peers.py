"""The same model with its features in the request, as JSON of the Open Inference Protocol: ours and other servers."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.contestant import Race
from benchmarks.environments import python_of
from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import Server, peer_server
from benchmarks.serving_asks import MODEL, infer_request, infer_scores
from benchmarks.serving_project import COMPARED, ServedProject, served_project
from benchmarks.serving_race import Contender, cost_row, latency_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape

OWN, FASTAPI = "skewless", "FastAPI + pydantic + `Booster.predict`"
MLSERVER, BENTOML, RAY = "MLServer", "BentoML", "Ray Serve"
CONCURRENCIES = (1, 16, 64)
_TARGETS = {MLSERVER: 8, BENTOML: 8, RAY: 8, FASTAPI: 4}


def run() -> list[Result]:
    """Race the servers; each peer of the first three has an environment of its own, made on first use."""
    shape = Shape(n_cards=10_000, n_shops=1_000, rounds=scaled(200, least=10))
    with served_project(shape) as project:
        vectors = project.whole_vectors()
        asked = [infer_request(vector[None]) for vector in vectors]
        ours = [project.infer(vector[None]) for vector in vectors]
        expected = project.scores(vectors[:COMPARED])
        contenders = [
            Contender(server=server, requests=requests, expected=expected, scores=infer_scores)
            for server, requests in [
                (project.server(ours[0]), ours),
                *((server, asked) for server in _peers(project, asked[0])),
            ]
        ]
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(3), load_s=seconds(2))
    return [row for concurrency in CONCURRENCIES for row in _rows(done, concurrency)]


def _peers(project: ServedProject, first: bytes) -> list[Server]:
    model = str(project.model)
    bento = {"MODEL_FILE": model, "BENTOML_DO_NOT_TRACK": "True"}
    return [
        peer_server("oip_fastapi", model, name=FASTAPI, first=first),
        _mlserver(project, first),
        Server(
            name=BENTOML,
            command=(_program("bentoml", "bentoml"), "serve", "benchmarks.peers.bento:Scorer", "--port", "{port}"),
            first=first,
            environment=bento,
        ),
        peer_server("ray_serve", model, name=RAY, first=first, python=python_of("ray")),
    ]


def _mlserver(project: ServedProject, first: bytes) -> Server:
    """Return MLServer with its own LightGBM runtime, in the process that answers: the fastest it can on one core."""
    folder = project.folder / "mlserver"
    folder.mkdir()
    model = {
        "name": MODEL,
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": str(project.model)},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    settings = {"parallel_workers": 0, "debug": False, "metrics_endpoint": None, "grpc_port": 0, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = (_program("mlserver", "mlserver"), "start", str(folder))
    return Server(name=MLSERVER, command=command, first=first, environment={"MLSERVER_HTTP_PORT": "{port}"})


def _program(peer: str, name: str) -> str:
    return str(Path(python_of(peer)).with_name(name))


def _rows(done: Race, concurrency: int) -> list[Result]:
    what = f"serving_peers: 40 features in the request, 200 trees, concurrency {concurrency}"
    targets = _TARGETS if concurrency > 1 else {}
    return [
        *(rate_row(done, what, OWN, peer, concurrency, targets.get(peer)) for peer in _TARGETS),
        *(latency_row(done, what, OWN, peer, concurrency, share) for peer in _TARGETS for share in ("p50", "p99")),
        cost_row(done, what, OWN, FASTAPI, concurrency),
    ]
