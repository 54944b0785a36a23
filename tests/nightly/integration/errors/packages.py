"""Packages that were altered since: at start, at prediction, at replay, at training, and at a hot swap."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from skewless.infra.platform.storage.documents import Records
from tests.nightly.integration.errors.case import Arrange, Case, ErrorReply, post, rows, verb
from tests.nightly.integration.errors.requests import LOGGED
from tests.nightly.integration.errors.scene import GOOD, Scene
from tests.worlds.waiting import eventually

FILES = (
    "about.json", "bounds.json", "extra/payment_time.py", "fingerprint.json", "manifest.json", "metrics.json",
    "model.txt", "plan.json", "profile.json", "reference_margins.npy", "reference_rows.npy", "reference_scores.npy",
    "spec.json",
)  # fmt: skip
_ROW = json.dumps(GOOD)


def _package(scene: Scene, version: str = "000001") -> Path:
    return scene.state / "packages/fraud" / version


def altered(file: str, version: str = "000001") -> Arrange:
    """Return the change of one byte of a packaged file."""

    def arrange(scene: Scene) -> None:
        path = _package(scene, version) / file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return arrange


def _lost(scene: Scene) -> None:
    (_package(scene) / "model.txt").unlink()


def _smuggled(scene: Scene) -> None:
    (_package(scene) / "notes.txt").write_text("mine")


def _case(what: str, words: tuple[str, ...], arrange: Arrange, value: str, **parts: Any) -> Case:  # noqa: ANN401
    given = {"thing": "package 'fraud' version '000001'", "fix": "use another version", "code": 8, **parts}
    return Case(name=f"{words[0]}: {what}", ask=verb(*words), arrange=arrange, says=(value,), **given)


def unserved(what: str, arrange: Arrange, *says: str) -> Case:
    """Return the starting of a server that cannot serve `fraud`: it says why, and serves the other model.

    In make test, test_what_can_be_served.py has such a server, and `predict` what is said of each file, as below.
    """

    def start(scene: Scene) -> None:
        arrange(scene)
        scene.serve()

    return Case(
        name=f"serve: {what}", ask=post(rows()), code=503, arrange=start, thing="model 'fraud'",
        says=("cannot be served", *says), fix="the server retries", after=_other_model_served, soak=True,
    )  # fmt: skip


def _other_model_served(scene: Scene, _: ErrorReply) -> None:
    assert scene.server is not None
    listed = scene.server.get("/models")
    assert [model["model"] for model in listed["models"]] == ["strict"]
    assert listed["refused"].keys() == {"fraud"}


def _moved_to_altered(scene: Scene) -> None:
    """While a server runs, a version that was altered becomes champion."""
    scene.serve()
    shutil.copytree(_package(scene), _package(scene, "000002"))  # its manifest says 000001
    aliases = scene.packages.aliases
    aliases.move("fraud", "champion", expect="000001", to="000002", reason="planted", now_us=1)
    server = scene.server
    assert server is not None
    eventually(lambda: server.get("/models")["refused"])


def _old_version_served(scene: Scene, said: ErrorReply) -> None:
    assert scene.server is not None
    assert said.body["version"] == "000001"
    listed = scene.server.get("/models")
    assert {model["model"]: model["version"] for model in listed["models"]} == {"fraud": "000001", "strict": "000001"}
    refused = listed["refused"]["fraud"]
    for part in ("package 'fraud' version '000002'", "manifest.json", "Fix: "):
        assert part in refused
    eventually(lambda: scene.logged() > scene.logged_before)
    _served_with_a_broken_alias(scene)
    eventually(lambda: scene.logged() > scene.logged_before + 1)


def _served_with_a_broken_alias(scene: Scene) -> None:
    """While the server runs, the alias itself becomes unreadable."""
    Records(scene.packages.state.database, "alias_move").append("fraud/champion", 3, {})
    server = scene.server
    assert server is not None
    problem = "alias 'fraud/champion': has a corrupt move 3"
    eventually(lambda: str(server.get("/models")["refused"]), lambda refused: problem in refused)
    said = post(rows())(scene)
    assert (said.code, said.body["version"]) == (200, "000001")


CASES: tuple[Case, ...] = (
    # The server loads a package with the code of this command; two files show its answer.
    *(
        _case(
            f"{file} altered", ("predict", "fraud", "--row", _ROW), altered(file), file, code=3,
            thing="model 'fraud'", fix="the server retries",
        )
        for file in FILES
    ),
    *(
        unserved(f"{file} altered", altered(file), "package 'fraud' version '000001'", file)
        for file in ("model.txt", "spec.json")
    ),
    *(
        _case(f"{file} altered", ("replay", "fraud"), altered(file), file)
        for file in ("model.txt", "plan.json", "extra/payment_time.py")
    ),
    Case(
        name="train: an altered champion is replaced, as its error advises", ask=verb("train", "fraud"), code=0,
        arrange=altered("model.txt"),
        added=(
            ".skewless/packages/fraud/000002/*", ".skewless/skewless.db/records/alias_move/fraud/champion/2",
            ".skewless/skewless.db/records/decision/fraud/2",
        ),
    ),
    unserved("model.txt lost", _lost, "model.txt", "restore the folder"),
    unserved("a file added", _smuggled, "notes.txt", "move it out"),
    Case(
        name="hot swap: an altered version, then an unreadable alias", ask=post(rows()), code=200,
        arrange=_moved_to_altered, after=_old_version_served,
        added=(*LOGGED, ".skewless/skewless.db/records/alias_move/fraud/champion/3"),
    ),
)  # fmt: skip
