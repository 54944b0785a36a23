"""A bundle: the champions of a project with its plan, for a server that has neither database nor definitions."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from skewless.contract.errors import ConflictError, DefinitionError, PackageError, PlaceError
from skewless.contract.names import check_known, is_name
from skewless.contract.plain_record import PlainRecord
from skewless.contract.settings import BUNDLE_FILE, BUNDLE_SETTINGS, Settings
from skewless.infra.definitions.plans.applied_plan import export_applied, import_applied, read_plan_number
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.models.packages.package import verify_folder
from skewless.infra.models.packages.signing import SIGNATURE, read_signer, trusted_documents
from skewless.infra.models.packages.store import AliasMove
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.durable import make_folder, rename_durable, translate_disk_errors
from skewless.infra.platform.storage.names import alias_name, check_folder_name, is_version
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.version import __version__
from skewless.workspace import CONFIG_FILE, Workspace

ARCHIVE = ".tar.gz"
_FORMAT = 1
_PACKAGES = "packages"
_KIND, _NAME = "bundle", "loaded"
MOST_FILES, MOST_BYTES = 10_000, 4 << 30  # of an unpacked archive


@dataclass(frozen=True, kw_only=True)
class Bundle(PlainRecord):
    """A bundle, or what one would contain.

    Args:
        target: the folder or archive.
        digest: SHA-256 that identifies its contents.
        models: version of each model.
        size: of its files, bytes.
    """

    target: str
    digest: str
    models: Mapping[str, str]
    size: int


def bundle(project: Workspace, target: Path, models: Sequence[str] = (), *, dry_run: bool = False) -> Bundle:
    """Write the champions of a project, its applied plan and its settings of serving into a folder or an archive.

    Equal contents give equal bytes. No secret, API key, private key or address of a store is among them.

    Args:
        target: a new folder, or a new file that ends in ``.tar.gz``.
        models: their names; empty: all models that have a champion.

    Raises:
        RequestError: there is no such model, or the target has the name of another kind of file.
        ConflictError: the target exists.
        PackageError: there is no champion, or a package is altered or not trusted.
        StalePlanError: no plan is applied.
        StoreError: the database, the storage or a disk failed.
    """
    if target.exists():
        raise ConflictError(f"target {target}", "exists", fix="name a new one")
    if not target.name.endswith(ARCHIVE):
        check_folder_name(target)
    with tempfile.TemporaryDirectory() as folder, translate_disk_errors(target):
        built = Path(folder) / "bundle"
        champions = _write_contents(project, built, models)
        bundle = Bundle(
            target=str(target),
            digest=digest_of(built),
            models=champions,
            size=sum(path.stat().st_size for path in built.rglob("*") if path.is_file()),
        )
        if not dry_run:
            publish(built, target)
    return bundle


def _write_contents(project: Workspace, folder: Path, models: Sequence[str]) -> dict[str, str]:
    """Write the files of a bundle into a new folder; return the version of each model."""
    plan, packages, aliases = export_applied(project.state), project.packages, project.store.aliases
    trained = packages.list_models()
    for name in models:
        check_known("argument MODEL", name, trained)
    held = {name: aliases.get(name, CHAMPION) for name in models or trained}
    champions = {name: version for name, version in held.items() if version is not None}
    if not champions or (models and len(champions) < len(held)):
        missing = next((name for name in held if name not in champions), "of the project")
        raise PackageError(f"model {missing}", "has no champion to bundle", fix="run `skewless train`")
    trusted, signers = project.store.trust, set()
    for name, version in champions.items():
        source = packages.version_folder(name, version)
        verify_folder(source, name, version, trusted)
        shutil.copytree(source, folder / _PACKAGES / name / version, copy_function=shutil.copyfile)
        signature = source / SIGNATURE
        signers.add(read_signer(signature.read_bytes()) if signature.exists() else None)
    plan = {**plan, "models": [spec for spec in plan["models"] if spec["name"] in champions]}
    body = {
        "format": _FORMAT,
        "release": __version__,
        "plan": plan,
        "settings": _serving_settings(project.settings),
        "champions": {
            name: {"version": version, "manifest": packages.manifest_digest(name, version)}
            for name, version in sorted(champions.items())
        },
        "trusted_keys": sorted(key for key in signers if key is not None),
    }
    (folder / BUNDLE_FILE).write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CONFIG_FILE).write_text(yaml.safe_dump({"project": plan["plan"]["project"]}), encoding="utf-8")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the container's user is another one
    return champions


def _serving_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of ``BUNDLE_SETTINGS`` that differ from their defaults."""
    values = settings.model_dump(mode="json", include=set(BUNDLE_SETTINGS))
    defaults = Settings().model_dump(mode="json")
    return {name: value for name, value in values.items() if value != defaults[name]}


def digest_of(folder: Path) -> str:
    """Return the digest of a bundle's folder, which identifies its contents.

    Raises:
        PlaceError: the folder is not that of a bundle.
    """
    if not (folder / BUNDLE_FILE).is_file():
        fix = "name a bundle that `skewless bundle` has written"
        raise PlaceError(f"folder {folder}", f"has no {BUNDLE_FILE}", fix=fix)
    return hashlib.sha256((folder / BUNDLE_FILE).read_bytes()).hexdigest()


def _pack(folder: Path, archive: Path) -> None:
    """Pack a folder's contents, without the owner and times of its files."""

    def normalize(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.mtime, item.uid, item.gid, item.uname, item.gname = 0, 0, 0, "", ""
        return item

    with (
        archive.open("xb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=normalize)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a bundle's files and folders, up to a number and a size, and nothing that points out of the folder.

    Raises:
        PlaceError: it is not such an archive.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for item in _limited(tar):
                tar.extract(item, folder, filter="data")
    except (tarfile.TarError, EOFError, FileNotFoundError, ValueError) as error:
        fix = "name a folder or an archive that `skewless bundle` has written"
        raise PlaceError(f"archive {archive}", f"cannot be unpacked: {error}", fix=fix) from error


def _limited(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    size = 0
    for n, item in enumerate(tar, start=1):
        size += item.size
        if n > MOST_FILES or size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_FILES:,} files, or than {MOST_BYTES:,} bytes")
        yield item


def publish(built: Path, target: Path) -> None:
    """Copy a folder to a new one, or pack it into an archive, which appears at the end."""
    make_folder(target.absolute().parent)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    _pack(built, partial) if target.name.endswith(ARCHIVE) else shutil.copytree(built, partial)
    rename_durable(partial, target)


def load_bundle(state: ProjectState, folder: Path, now_us: int) -> None:
    """Copy a bundle into an empty state; a state that has this bundle is unchanged.

    A load that was interrupted is run again. The server checks the signature of each package when it opens it.

    Raises:
        PlaceError: the folder has no bundle that this release can read.
        ConflictError: the state is that of a project, or of another bundle.
        PackageError: a package is missing or is another one.
        StoreError: the database or a disk failed.
    """
    body, digest, documents = read_bundle(folder), digest_of(folder), Documents(state.database, _KIND)
    loaded = documents.get(_NAME)
    if loaded == digest:
        return
    if loaded is not None or read_plan_number(state):
        fix = "name an empty folder in the setting state"
        raise ConflictError(f"state folder {state.folder}", "has the state of another bundle or project", fix=fix)
    packages = PackageFolder(state.folder / _PACKAGES)
    for name, champion in body["champions"].items():
        _copy_package(folder, packages, name, champion)
    with state.database.transaction():
        import_applied(state, body["plan"])
        for key in body["trusted_keys"]:
            trusted_documents(state).create(key, {})
        for name, champion in body["champions"].items():
            reason = f"loaded from bundle {digest[:12]}"
            move = AliasMove(number=1, expect=None, to=champion["version"], reason=reason, at_us=now_us)
            Records(state.database, "alias_move").append(alias_name(name, CHAMPION), 1, asdict(move))
        documents.put(_NAME, digest)


def prepare_state(project: Workspace) -> None:
    """Load the bundle of the project's folder into its state, unless the project has a database of its own.

    Raises:
        DefinitionError: a setting that a container needs is missing.
        ConflictError, PackageError, PlaceError, StoreError: as ``load_bundle``.
    """
    settings = project.settings
    if settings.redis_url is None:
        fix = "set SKEWLESS_REDIS_URL to the online store that the project fills"
        raise DefinitionError("setting 'redis_url'", "is missing, and a container starts no server", fix=fix)
    if (settings.storage_url is None) != (settings.database_url is None):
        fix = "set both SKEWLESS_DATABASE_URL and SKEWLESS_STORAGE_URL, or none of them"
        raise DefinitionError("settings 'database_url' and 'storage_url'", "are not both set", fix=fix)
    if settings.local_log_mb and settings.log_durability == "storage":
        fix = "set SKEWLESS_DATABASE_URL and SKEWLESS_STORAGE_URL, or log_durability: disk"
        raise DefinitionError("setting 'log_durability'", "needs a database", value="storage", fix=fix)
    if settings.database_url is None and (project.repo / BUNDLE_FILE).exists():
        load_bundle(project.state, project.repo, project.clock.now_us())


def _copy_package(folder: Path, packages: PackageFolder, name: str, champion: Mapping[str, str]) -> None:
    version, thing = champion["version"], f"package {name} {champion['version']}"
    source = folder / _PACKAGES / name / version
    with translate_disk_errors(source):
        make_folder(packages.model_folder(name))
        with packages.stage(name, "copy") as staging:
            if not source.is_dir():
                raise PackageError(thing, "is missing in the bundle", fix="bundle it again")
            shutil.copytree(source, staging, dirs_exist_ok=True, copy_function=shutil.copyfile)
            packages.add_version(name, version, staging, {})
    if packages.manifest_digest(name, version) != champion["manifest"]:
        raise PackageError(thing, "is not that of the bundle", fix="bundle it again into an empty state folder")


def package_folder(folder: Path, name: str, version: str) -> Path:
    """Return the folder of a package in the folder of a bundle."""
    return folder / _PACKAGES / name / version


def read_bundle(folder: Path) -> dict[str, Any]:
    """Return the contents of ``bundle.json``.

    Raises:
        PlaceError: there is no such file, or this release cannot read it.
    """
    try:
        body = json.loads((folder / BUNDLE_FILE).read_bytes())
        is_valid = (
            body["format"] == _FORMAT
            and isinstance(body["plan"], dict)
            and all(isinstance(key, str) for key in body["trusted_keys"])
            and all(_is_champion(name, champion) for name, champion in body["champions"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_valid = False
    if not is_valid:
        fix = "bundle the project again with this release"
        raise PlaceError(f"folder {folder}", f"has no readable {BUNDLE_FILE}", fix=fix)
    return dict(body)


def _is_champion(name: str, champion: Mapping[str, object]) -> bool:
    """Return whether a bundle names a version; its names become paths."""
    return is_name(name) and is_version(str(champion["version"])) and isinstance(champion["manifest"], str)
