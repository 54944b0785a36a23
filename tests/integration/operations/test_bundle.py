"""A bundle has what a server needs and no secret; a state loads it once, and nothing but it."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.contract.errors import (
    ConflictError,
    DefinitionError,
    PackageError,
    PlaceError,
    RequestError,
    SkewlessError,
)
from skewless.contract.settings import BUNDLE_FILE, BUNDLE_SETTINGS, Settings, load_settings
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.state import bundle as bundles
from skewless.operations.state.bundle import digest_of, load_bundle, prepare_state, unpack
from skewless.project import Project
from skewless_cloud.storage import CloudStorage, parse_address
from skewless_export.export import export
from skewless_platforms.containers import locate_project
from skewless_platforms.contracts import PlatformName
from tests.worlds.trained import MODEL, NOW, Sandbox

SECRET = "hunter2"  # noqa: S105 - of the test


def loaded(state: Path, bundle: Path) -> Project:
    """Return the project of a container with a state of its own, before it serves."""
    project = Project(bundle, state=str(state), redis_url="redis://127.0.0.1:1/0")
    prepare_state(project)
    return project


def test_equal_projects_give_equal_bytes_without_secrets(place: Sandbox, tmp_path: Path) -> None:
    place.project.keys.add("web", scope=("predict",))
    secret = f"redis://user:{SECRET}@127.0.0.1/0"
    with Project(place.repo, redis_url=secret, stream_url=secret, max_batch=7, deadline_ms=9.0) as project:
        folder = project.bundle(tmp_path / "bundle")
        archives = [project.bundle(tmp_path / name / "model.tar.gz") for name in "ab"]
    assert {archive.digest for archive in archives} == {folder.digest}
    assert (tmp_path / "a/model.tar.gz").read_bytes() == (tmp_path / "b/model.tar.gz").read_bytes()
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert folder.size == sum(path.stat().st_size for path in files)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    text = b"".join(path.read_bytes() for path in files)
    for hidden in (SECRET, "PRIVATE KEY", "api_key", "sk_web", str(place.repo)):
        assert hidden.encode() not in text
    body = json.loads((tmp_path / "bundle" / BUNDLE_FILE).read_text())
    assert body["settings"] == {"deadline_ms": 9.0, "max_batch": 7}
    with tarfile.open(tmp_path / "a/model.tar.gz") as tar:
        assert {item.name for item in tar if item.isfile()} == {
            path.relative_to(tmp_path / "bundle").as_posix() for path in files
        }


@pytest.mark.parametrize("name", ["x.tgz", "x.zip", "x.TAR", "x.gz", "x.parquet"])
def test_a_new_folder_does_not_get_the_name_of_a_file(place: Sandbox, tmp_path: Path, name: str) -> None:
    project, target, entities = place.project, tmp_path / name, place.repo / "entities.csv"
    entities.write_text("card_id,shop_id,amount,paid_at\n1,a,1.5,2025-01-01T00:00:00Z\n")
    writers: tuple[Callable[[bool], object], ...] = (
        lambda dry_run: project.bundle(target, dry_run=dry_run),
        lambda dry_run: project.backup(target, dry_run=dry_run),
        lambda dry_run: export(project, MODEL, to="table", out=target, dry_run=dry_run),
        lambda dry_run: project.dataset(entities, MODEL, target, time="paid_at", dry_run=dry_run),
    )
    for write in writers:
        for dry_run in (True, False):
            with pytest.raises(RequestError, match=r"x\.\w+: has the name of a file .got '\.\w+'.. Fix: name a folder"):
                write(dry_run)
    assert not target.exists()


def test_no_setting_of_a_bundle_is_a_place_or_an_address() -> None:
    unwanted = {name for name in Settings.model_fields if name.endswith(("_url", "_uri", "_address", "_webhook"))}
    unwanted |= {"kafka", "state", "clock", "host", "port", "auth", "signing_key", "tls_key", "tls_cert", "platform"}
    unwanted |= {"trusted_keys", "approvals", "log_durability", "local_log_mb", "storage_cache_gb", "engine"}
    assert set(BUNDLE_SETTINGS) <= Settings.model_fields.keys() - unwanted


@pytest.fixture
def bundle_folder(place: Sandbox, tmp_path: Path) -> Path:
    """The folder of a bundle, whose files anybody may have altered."""
    place.project.bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def alter(folder: Path, **facts: object) -> None:
    """Alter ``bundle.json``."""
    path = folder / BUNDLE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_a_bundle_decides_about_its_models_alone(bundle_folder: Path) -> None:
    """With each setting of the product."""
    for name, field in Settings.model_fields.items():
        alter(bundle_folder, settings={name: field.get_default()})
        if name in BUNDLE_SETTINGS:
            assert getattr(load_settings(bundle_folder), name) == field.get_default()
            continue
        for platform in ("none", "azure"):
            with pytest.raises(DefinitionError, match=f"setting {name!r} of bundle .* is not a bundle's to decide"):
                Project(bundle_folder, platform=platform)
    alter(bundle_folder, settings={"no_such": 1})
    with pytest.raises(DefinitionError, match="is not a bundle's to decide"):
        load_settings(bundle_folder)


def test_a_mounted_folder_that_is_no_bundle_is_refused(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project has settings of trust, places and access; so has one in an archive."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
    for name in ("work", "mounted", "packed"):
        (tmp_path / name).mkdir()
    shutil.copy(place.repo / "feature_store.yaml", tmp_path / "mounted")
    (tmp_path / "mounted" / "skewless.yaml").write_text("auth: 'off'\nstate: ../elsewhere\n")
    with tarfile.open(tmp_path / "packed" / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "mounted", ".")
    for folder in ("mounted", "packed"):
        with pytest.raises(PlaceError, match="has no bundle"):
            locate_project("azure", None, {"AZUREML_MODEL_DIR": str(tmp_path / folder)})


def test_what_a_bundle_decides_is_inside_its_digest(bundle_folder: Path) -> None:
    before = digest_of(bundle_folder)
    alter(bundle_folder, settings={"max_batch": 3})
    assert digest_of(bundle_folder) != before
    (bundle_folder / "skewless.yaml").write_text("max_batch: 5\n")
    with pytest.raises(DefinitionError, match=r"has a skewless\.yaml, which its digest does not cover"):
        load_settings(bundle_folder)


@pytest.mark.parametrize("damage", [{"settings": None}, {"settings": [1]}, {"settings": "off"}])
def test_settings_of_a_bundle_that_cannot_be_read_are_refused(bundle_folder: Path, damage: dict[str, object]) -> None:
    alter(bundle_folder, **damage)
    with pytest.raises(PlaceError, match=r"has no readable bundle\.json"):
        load_settings(bundle_folder)


@pytest.mark.parametrize("text", ["", "[]"])
def test_an_empty_list_of_trusted_keys_trusts_nobody(
    bundle_folder: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_TRUSTED_KEYS", text)
    with pytest.raises(DefinitionError, match="setting 'trusted_keys': is empty"):
        Project(bundle_folder)


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES"])
def test_an_archive_is_unpacked_up_to_a_limit(
    place: Sandbox, tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "model.tar.gz"
    written = place.project.bundle(archive)
    unpack(archive, tmp_path / "whole")
    assert digest_of(tmp_path / "whole") == written.digest
    monkeypatch.setattr(bundles, limit, 4)
    with pytest.raises(PlaceError, match="cannot be unpacked: it has more than"):
        unpack(archive, tmp_path / "cut")
    with pytest.raises(PlaceError, match="cannot be unpacked: it has more than"):
        place.project.adopt(archive, MODEL, digest=written.digest)


def test_a_state_loads_a_bundle_once(place: Sandbox, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    written = place.project.bundle(bundle)
    # A container that was killed while it copied.
    shutil.copytree(bundle / "packages", tmp_path / "state/packages")
    for _ in range(2):
        with loaded(tmp_path / "state", bundle) as project:
            assert project.store.aliases.get(MODEL, "champion") == "000001"
            assert project.packages.manifest_digest(MODEL, "000001") == place.project.packages.manifest_digest(
                MODEL, "000001"
            )
            assert [spec.name for spec in project.models] == [MODEL]
            assert project.store.aliases.history(MODEL, "champion")[0].reason.endswith(written.digest[:12])
    other = Path(shutil.copytree(bundle, tmp_path / "other")) / BUNDLE_FILE
    other.write_text(json.dumps({**json.loads(other.read_text()), "release": "another"}))
    with pytest.raises(ConflictError, match="has the state of another bundle or project"):
        loaded(tmp_path / "state", tmp_path / "other")
    with pytest.raises(ConflictError, match="has the state of another bundle or project"):
        load_bundle(place.project.state, bundle, NOW)


def test_bundles_that_are_refused(place: Sandbox, tmp_path: Path) -> None:
    bundle = place.project.bundle
    assert bundle(tmp_path / "dry", dry_run=True).models == {MODEL: "000001"}
    assert not list(tmp_path.glob("dry*"))
    with pytest.raises(RequestError, match="argument MODEL: is unknown"):
        bundle(tmp_path / "bundle", ["none"])
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConflictError, match="exists"):
        bundle(tmp_path / "bundle")
    (place.state / "packages" / MODEL / "000001" / "metrics.json").write_text("{}")
    with pytest.raises(PackageError, match="altered"):
        bundle(tmp_path / "altered")
    assert not (tmp_path / "altered").exists()


@pytest.mark.parametrize("name", ["../x", "/etc", "", "a/b"])
def test_names_in_a_bundle_do_not_leave_its_folder(place: Sandbox, tmp_path: Path, name: str) -> None:
    place.project.bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / BUNDLE_FILE
    body = json.loads(path.read_text())
    for champions in ({name: body["champions"][MODEL]}, {MODEL: {"version": name, "manifest": ""}}):
        path.write_text(json.dumps({**body, "champions": champions}))
        with pytest.raises(PlaceError, match=r"has no readable bundle\.json"):
            loaded(tmp_path / "state", tmp_path / "bundle")


def test_a_replaced_package_is_refused(place: Sandbox, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    place.project.bundle(bundle)
    body = json.loads((bundle / BUNDLE_FILE).read_text())
    manifest = bundle / "packages" / MODEL / "000001" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(PackageError, match="is not that of the bundle"):
        loaded(tmp_path / "state", bundle)
    shutil.rmtree(manifest.parent)
    with pytest.raises(PackageError, match="is missing in the bundle"):
        loaded(tmp_path / "other", bundle)
    for damage in ({}, {**body, "format": 2}, {**body, "trusted_keys": [1]}, {**body, "plan": None}):
        (bundle / BUNDLE_FILE).write_text(json.dumps(damage))
        with pytest.raises(PlaceError, match=r"has no readable bundle\.json"):
            loaded(tmp_path / "third", bundle)


def test_an_archive_does_not_write_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "model").mkdir()
    with tarfile.open(tmp_path / "model/model.tar.gz", "w:gz") as tar:
        item = tarfile.TarInfo("../../escaped")
        tar.addfile(item)
    with pytest.raises(PlaceError, match="cannot be unpacked"):
        locate_project("azure", None, {"AZUREML_MODEL_DIR": str(tmp_path / "model")})
    assert not list(tmp_path.rglob("escaped"))


def test_a_planted_work_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"skewless-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    planted.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlaceError, match="belongs to another user"):
        locate_project("sagemaker", None, {})
    planted.unlink()
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(PlaceError, match="belongs to another user"):
        locate_project("sagemaker", None, {})


VERTEX = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/health", "AIP_STORAGE_URI": "/none"}


@pytest.mark.parametrize(
    ("platform", "environment", "text"),
    [
        ("vertex", {}, "environment variable AIP_PREDICT_ROUTE: is not a path"),
        ("vertex", {**VERTEX, "AIP_HEALTH_ROUTE": "/{x}"}, "environment variable AIP_HEALTH_ROUTE: is not a path"),
        ("vertex", {**VERTEX, "AIP_HTTP_PORT": "http"}, "environment variable AIP_HTTP_PORT: is not a port"),
        ("vertex", {**VERTEX, "AIP_STORAGE_URI": ""}, "the platform: names no model"),
        ("vertex", VERTEX, "folder /none: has no bundle"),
        ("sagemaker", {"SAGEMAKER_BIND_TO_PORT": "0"}, "environment variable SAGEMAKER_BIND_TO_PORT: is not a port"),
        ("azure", {}, "the platform: names no model"),
    ],
)
def test_an_environment_that_is_refused(
    platform: PlatformName, environment: dict[str, str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SkewlessError, match=text):
        locate_project(platform, None, environment)


def test_a_bundle_is_downloaded_from_the_bucket_that_vertex_names(
    place: Sandbox, tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place.project.bundle(tmp_path / "bundle")
    place.project.bundle(tmp_path / "packed/model.tar.gz")
    for name in ("bundle", "packed"):
        url = bucket_url.replace("?", f"/{name}?")
        storage = CloudStorage(parse_address(url), tmp_path / "uploads", 10**9)
        files = {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*") if path.is_file()}
        for path, source in files.items():
            storage.put_file(path.as_posix(), source)
        folder, _ = locate_project("vertex", None, {**VERTEX, "AIP_STORAGE_URI": url})
        with loaded(tmp_path / f"state-{name}", folder) as project:
            assert open_package(project.store, MODEL, "000001").name == MODEL


def test_settings_that_are_refused(place: Sandbox, tmp_path: Path) -> None:
    place.project.bundle(tmp_path / "bundle")
    for settings, text in (
        ({}, "setting 'redis_url': is missing"),
        ({"redis_url": "redis://h", "storage_url": "s3://b"}, "are not both set"),
        ({"redis_url": "redis://h", "database_url": "sqlite:///x.db"}, "are not both set"),
        ({"redis_url": "redis://h", "local_log_mb": 1, "log_durability": "storage"}, "setting 'log_durability'"),
    ):
        with pytest.raises(DefinitionError, match=text):
            prepare_state(Project(tmp_path / "bundle", **settings))


def test_the_settings_of_a_container(place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Project(place.repo, deadline_ms=9.0) as project:
        project.bundle(tmp_path / "models/bundle")  # Azure adds a folder of the model's name
    environment = {"AZUREML_MODEL_DIR": str(tmp_path / "models")}
    folder, settings = locate_project("azure", None, environment)
    assert folder == tmp_path / "models/bundle"
    state = str(tmp_path / f"skewless-{os.getuid()}" / "state")
    container = {"host": "0.0.0.0", "port": 8080, "state": state}  # noqa: S104
    assert settings == {**container, "local_log_mb": 32.0}
    monkeypatch.setenv("SKEWLESS_LOCAL_LOG_MB", "0")
    monkeypatch.setenv("SKEWLESS_HOST", "127.0.0.1")
    monkeypatch.setenv("SKEWLESS_STATE", str(tmp_path))
    _, settings = locate_project("sagemaker", folder, {"SAGEMAKER_BIND_TO_PORT": "81"})
    assert settings == {"port": 81}  # the deadline of the bundle wins
    alter(folder, settings={})
    assert locate_project("sagemaker", folder, {})[1]["deadline_ms"] == 55_000


def test_trusted_keys_of_the_container_replace_those_of_the_bundle(place: Sandbox, tmp_path: Path) -> None:
    """Who replaces the bundle and signs with a key of its own is refused."""
    place.project.bundle(tmp_path / "bundle")
    state = ProjectState(tmp_path / "state")
    load_bundle(state, tmp_path / "bundle", NOW)
    other = f"ed25519:{'A' * 43}="
    project = Project(tmp_path / "bundle", state=str(state.folder), trusted_keys=(other,))
    with pytest.raises(PackageError, match="is signed by a key that is not trusted"):
        open_package(project.store, MODEL, "000001")
