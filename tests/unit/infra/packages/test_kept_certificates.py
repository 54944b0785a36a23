"""A kept certificate counts only for the same package, library and machine, and with a trusted signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from skewless.contract.errors import PackageError
from skewless.infra.models.packages import kept_certificates
from skewless.infra.models.packages.kept_certificates import FOLDER, certify_once
from skewless.infra.models.packages.package import Package, PackageContents
from skewless.infra.models.packages.signing import key_removals, record_removal
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import Certificate, Reference, certify
from skewless.infra.models.runtimes.lightgbm_capi import LightGBMRuntime
from tests.worlds.packages import store_at


@pytest.fixture(scope="module")
def model() -> tuple[bytes, Reference]:
    """Return a model's text, and rows with the library's own results."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 2))
    data = lgb.Dataset(rows, (rows[:, 0] > 0).astype(float))
    booster = lgb.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 5)
    margins, scores = np.asarray(booster.predict(rows, raw_score=True)), np.asarray(booster.predict(rows))
    return booster.model_to_string().encode(), Reference(rows, margins, scores)


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_certificates, "_WORTH_BYTES", 0)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the runtimes that were really certified."""
    certified: list[str] = []

    def counted(runtime: LightGBMRuntime, reference: Reference, *, tolerance: float) -> Certificate:
        certified.append(runtime.runtime_id)
        return certify(runtime, reference, tolerance=tolerance)

    monkeypatch.setattr(kept_certificates, "certify", counted)
    return certified


@pytest.fixture
def store(tmp_path: Path) -> PackageStore:
    return store_at(tmp_path)


@pytest.fixture
def package(store: PackageStore, contents: PackageContents, model: tuple[bytes, Reference]) -> Package:
    return write_package(store, "late", replace(contents, model=model[0], reference=model[1]))


@contextmanager
def opened(package: Package) -> Iterator[LightGBMRuntime]:
    runtime = open_runtime("lightgbm", package.model_file)
    assert isinstance(runtime, LightGBMRuntime)
    yield runtime
    runtime.close()


def record_of(store: PackageStore) -> Path:
    (path,) = (store.state / FOLDER).iterdir()
    return path


def test_it_is_certified_once(store: PackageStore, package: Package, count: list[str]) -> None:
    with opened(package) as runtime:
        first, second = certify_once(store, package, runtime), certify_once(store, package, runtime)
    assert len(count) == 1
    assert first == second == Certificate(runtime_id=runtime.runtime_id, rows=200, bit_equal=True, largest_difference=0)


def test_a_small_model_is_certified_each_time(
    store: PackageStore, package: Package, count: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_certificates, "_WORTH_BYTES", package.model_file.stat().st_size + 1)
    with opened(package) as runtime:
        certify_once(store, package, runtime)
        certify_once(store, package, runtime)
    assert len(count) == 2
    assert not (store.state / FOLDER).exists()


def _other_text(store: PackageStore, _: Package) -> None:
    path = record_of(store)
    path.write_bytes(store.signer.sign(b"another runtime", "runtime certificate"))


def _other_kind(store: PackageStore, package: Package) -> None:
    path, text = record_of(store), kept_certificates._describe
    with opened(package) as runtime:
        described = text(package, runtime)
    assert described is not None
    path.write_bytes(store.signer.sign(described))  # as the manifest of a package


def _altered(store: PackageStore, _: Package) -> None:
    body = json.loads(record_of(store).read_bytes())
    record_of(store).write_text(json.dumps(body | {"signature": "A" * 86 + "=="}))


def _empty(store: PackageStore, _: Package) -> None:
    record_of(store).write_bytes(b"")


def _untrusted(store: PackageStore, _: Package) -> None:
    record_removal(store.state, store.signer.prepare(), {})
    assert key_removals(store.state).names()


@pytest.mark.parametrize("alter", [_other_text, _other_kind, _altered, _empty, _untrusted])
def test_a_record_without_a_trusted_signature_does_not_count(
    store: PackageStore, package: Package, count: list[str], alter: Callable[[PackageStore, Package], None]
) -> None:
    with opened(package) as runtime:
        certify_once(store, package, runtime)
        alter(store, package)
        certify_once(store, package, runtime)
    assert len(count) == 2


def test_another_package_or_library_or_machine_is_certified(
    store: PackageStore, package: Package, count: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(package) as runtime:
        certify_once(store, package, runtime)
        certify_once(store, replace(package, digest="0" * 64), runtime)
        certify_once(store, package, runtime)  # the record is that of the other package now
        for library in (replace(runtime.library, path=Path(__file__)), runtime.library):
            runtime.library = library
            certify_once(store, package, runtime)
        monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2_Usable")
        runtime.library = replace(runtime.library)  # as a new process would find it
        certify_once(store, package, runtime)
    assert len(count) == 6


def test_a_preloaded_library_leaves_no_record(
    store: PackageStore, package: Package, count: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libother.so")
    with opened(package) as runtime:
        runtime.library = replace(runtime.library)
        certify_once(store, package, runtime)
        certify_once(store, package, runtime)
    assert len(count) == 2
    assert not (store.state / FOLDER).exists()


def test_without_the_signing_key_nothing_is_kept(store: PackageStore, package: Package, count: list[str]) -> None:
    store.signer.path.unlink()
    with opened(package) as runtime:
        certify_once(store, package, runtime)
        certify_once(store, package, runtime)
    assert len(count) == 2
    assert not (store.state / FOLDER).exists()
    assert not store.signer.path.exists()


def test_a_runtime_that_differs_is_refused_and_leaves_no_record(
    store: PackageStore, contents: PackageContents, model: tuple[bytes, Reference]
) -> None:
    reference = Reference(model[1].rows, np.nextafter(model[1].margins, np.inf), model[1].scores)
    package = write_package(store, "late", replace(contents, model=model[0], reference=reference))
    with opened(package) as runtime, pytest.raises(PackageError, match="differs from the library on 200 of 200 rows"):
        certify_once(store, package, runtime)
    assert not (store.state / FOLDER).exists()
