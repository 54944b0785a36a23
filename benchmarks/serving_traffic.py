"""What a rollout costs the server: routing, logging and counting, and apart from them a shadow's own scoring.

The challenger and the shadow are copies of the champion, so that every answer can be compared with its model's.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from benchmarks.served import peer_server
from benchmarks.serving_project import ServedProject, pair_contender, served_project
from benchmarks.serving_race import Contender, cost_row, race_servers, rate_row, seconds
from benchmarks.serving_repo import Shape
from skewless.contract.settings import Settings
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.package import encode_manifest, verify_folder
from skewless.infra.models.packages.signing import SIGNATURE
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.names import MANIFEST
from skewless.infra.platform.storage.project_state import ProjectState

BARE, LOGGED, CANARY, SHADOW = (
    "without log, policy and counts",
    "with the log",
    "with a canary of half the entities",
    "with a canary and a shadow",
)
CONCURRENCIES = (1, 16, 64)
_MODEL, _ONE, _TWO, _THREE = "fraud", "000001", "000002", "000003"
_REACH = 0.9


def run() -> list[Result]:
    """Race the server under no policy and two of them on one project."""
    shape = Shape(n_cards=scaled(100_000), n_shops=scaled(10_000), rounds=scaled(200, least=10))
    with served_project(shape) as project:
        _copy_versions(project.repo)
        plain = pair_contender(project)
        contenders = [
            _bare(project, plain),
            replace(plain, server=replace(plain.server, name=LOGGED)),
            _under(project, CANARY, ()),
            _under(project, SHADOW, (_THREE,)),
        ]
        done = race_servers(contenders, CONCURRENCIES, project.where, rounds=rounds(5), load_s=seconds(2))
    rows = []
    for concurrency in CONCURRENCIES:
        what = f"serving_traffic: one pair, 2 views, 40 features, 200 trees, concurrency {concurrency},"
        rows += [
            rate_row(done, f"{what} {LOGGED}", LOGGED, BARE, concurrency),
            cost_row(done, f"{what} {LOGGED}", LOGGED, BARE, concurrency),
            rate_row(done, f"{what} {CANARY}", CANARY, BARE, concurrency, _REACH),
            cost_row(done, f"{what} {CANARY}", CANARY, BARE, concurrency),
            rate_row(done, f"{what} {SHADOW}", SHADOW, CANARY, concurrency),
            cost_row(done, f"{what} {SHADOW}", SHADOW, CANARY, concurrency),
        ]
    return rows


def _bare(project: ServedProject, plain: Contender) -> Contender:
    server = peer_server("without_log", str(project.repo), name=BARE, first=plain.server.first)
    return replace(plain, server=replace(server, environment=plain.server.environment))


def _under(project: ServedProject, name: str, shadows: tuple[str, ...]) -> Contender:
    """Return our server on a copy of the project that has a policy."""
    repo = project.folder / f"repo-{len(shadows)}"
    shutil.copytree(project.repo, repo)
    policy = TrafficPolicy(
        number=0, phase="canary", champion=_ONE, challenger=_TWO, share=0.5, shadows=shadows, sticky=("card_id",)
    )
    PackageStore.of(ProjectState(repo / ".skewless"), Settings()).traffic.replace(_MODEL, policy, expect=None)
    contender = pair_contender(replace(project, repo=repo))
    return replace(contender, server=replace(contender.server, name=name))


def _copy_versions(repo: Path) -> None:
    folder = repo / ".skewless" / "packages" / _MODEL
    store = PackageStore.of(ProjectState(repo / ".skewless"), Settings())
    held = verify_folder(folder / _ONE, _MODEL, _ONE, store.trust)
    for version in (_TWO, _THREE):
        shutil.copytree(folder / _ONE, folder / version)
        manifest = encode_manifest(_MODEL, version, held.model_file, held.files)
        (folder / version / MANIFEST).write_bytes(manifest)
        (folder / version / SIGNATURE).write_bytes(store.signer.sign(manifest))
