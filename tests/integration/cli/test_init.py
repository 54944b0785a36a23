"""``skewless init``: what it writes, and what it refuses to touch."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from feast.repo_operations import get_repo_files

from skewless.contract.errors import DefinitionError
from skewless.project import Project
from tests.worlds.command_line import done, fingerprint, run

TEMPLATE = Path(__file__).parents[3] / "skewless/template/fraud"


@pytest.mark.parametrize(("name", "project"), [("my-project", "my_project"), ("2 ünits", "2_nits"), ("__x", "x")])
def test_the_project_is_named_after_its_folder(name: str, project: str, tmp_path: Path) -> None:
    body = done("init", tmp_path / name)
    assert body["project"] == project
    config = yaml.safe_load((tmp_path / name / "feature_store.yaml").read_text())
    assert config == yaml.safe_load((TEMPLATE / "feature_store.yaml").read_text()) | {"project": project}


def test_the_folder_holds_the_template_and_the_data(tmp_path: Path) -> None:
    body = done("init", "shop", "--repo", tmp_path)
    files = {
        path.relative_to(tmp_path / "shop").as_posix() for path in (tmp_path / "shop").rglob("*") if path.is_file()
    }
    assert files == set(body["files"])
    assert {".feastignore", "skewless.yaml", "definitions.py", "data/payments.parquet"} <= files
    for name in ("definitions.py", "models.py", "transforms.py", ".feastignore"):
        assert (tmp_path / "shop" / name).read_bytes() == (TEMPLATE / name).read_bytes()
    for name, rows in body["rows"].items():
        assert pq.read_table(tmp_path / "shop/data" / name).num_rows == rows
    *commands, predict = body["next"]
    names = ("apply", "import", "materialize", "train")
    assert commands == [f"skewless {name} --repo {tmp_path / 'shop'}" for name in names]
    assert predict.startswith(f"skewless predict fraud --repo {tmp_path / 'shop'} --row '{{")
    assert run("init", tmp_path / "other").stdout.splitlines()[-6].strip() == "next:"


@pytest.mark.parametrize("template", ["delay", "churn", "empty"])
def test_a_template_is_chosen_by_name(template: str, tmp_path: Path) -> None:
    body = done("init", tmp_path / "p", "--template", template)
    assert (body["template"], body["written"], bool(body["rows"])) == (template, True, template != "empty")
    last = "serve" if template == "empty" else "predict"
    assert body["next"][-1].startswith(f"skewless {last} ")
    assert get_repo_files(tmp_path / "p") == [tmp_path / "p/definitions.py"]  # what `feast apply` loads


def test_without_models_train_and_serve_say_what_to_declare(tmp_path: Path) -> None:
    done("init", tmp_path / "p", "--template", "empty")
    done("apply", "--repo", tmp_path / "p")
    trained = run("train", "--repo", tmp_path / "p")
    assert (trained.code, "the applied plan has no model: declare one in models.py" in trained.stdout) == (0, True)
    refused = run("serve", "--port", "0", "--repo", tmp_path / "p")
    assert (refused.code, "Fix: declare a model in models.py" in refused.stderr) == (8, True)


def test_an_unknown_template_is_refused(tmp_path: Path) -> None:
    assert run("init", tmp_path / "p", "--template", "shop").code == 2
    with pytest.raises(DefinitionError, match=r"template: is unknown .got 'shop'.*fraud, delay, churn, empty"):
        Project.init(tmp_path / "p", template="shop")  # type: ignore[arg-type]
    assert fingerprint(tmp_path) == {}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    body = done("init", tmp_path / "shop", "--dry-run")
    assert (body["written"], body["rows"]) == (False, {})
    assert "definitions.py" in run("init", tmp_path / "shop", "--dry-run").stdout
    assert fingerprint(tmp_path) == {}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    done("init", tmp_path / "shop")
    assert (tmp_path / "shop/definitions.py").is_file()


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_used_folder_is_refused_and_left_alone(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = fingerprint(tmp_path)
    said = run("init", tmp_path, *options, "--json")
    assert (said.code, said.body["error"]["kind"], said.body["error"]["value"]) == (10, "place", "notes.txt")
    assert run("init", tmp_path / "notes.txt").code == 10
    assert fingerprint(tmp_path) == before


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> dict[str, int]:
        raise OSError(28, "No space left on device", "data/payments.parquet")

    monkeypatch.setattr("skewless.operations.sample.write_sample", full)
    said = run("init", tmp_path / "shop", "--json")
    assert (said.code, said.body["error"]["kind"]) == (7, "store")
    assert "free disk space" in said.body["error"]["fix"]
    assert fingerprint(tmp_path) == {}
