"""What clients are told of an error names no folder of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from skewless.contract.errors import PackageError, RequestError, SkewlessError, StalePlanError, StoreError
from skewless.infra.platform.storage.durable import disk_error
from skewless.serving.http.reply import error_json

FOLDER = Path("/srv/projects/my-shop/.skewless")
ERRORS = [
    disk_error(
        FOLDER / "outcomes/a.parquet", OSError(28, "No space left on device", str(FOLDER / "outcomes/a.parquet"))
    ),
    StoreError(f"prediction log {FOLDER}", f"cannot be written: '{FOLDER}/x'", fix=f"look at {FOLDER}/x"),
    PackageError(f"project in {FOLDER}", "has no champion", value=FOLDER / "packages", fix="train"),
    StalePlanError("model 'm'", f"cannot be served: file {FOLDER}/plan.json is gone", value=str(FOLDER / "p"), fix="-"),
]


@pytest.mark.parametrize("path", ["/feedback", "/v2/models/m/infer"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_errors_of_ours_name_no_folder(error: SkewlessError, path: str) -> None:
    said = str(error_json(error, path))
    assert "/srv" not in said
    assert "my-shop" not in said
    assert error.problem.partition(":")[0] in said


def test_errors_of_the_caller_show_what_was_sent() -> None:
    error = RequestError("field 'x'", "is unknown", value="/a/b/c", fix="GET /docs lists the routes")
    assert error_json(error, "/predict")["error"]["value"] == "/a/b/c"
