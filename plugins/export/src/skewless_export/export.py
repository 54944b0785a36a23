"""Export a model as a program or a file, with a signed certificate of its scores, and certify an export again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skewless.contract.errors import ConflictError, PackageError, PlaceError
from skewless.contract.names import check_known
from skewless.contract.plain_record import PlainRecord
from skewless.contract.vector import Assembler
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.models.packages.package import Package, open_package, pinned_plan
from skewless.infra.models.packages.signing import SIGNATURE
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import certify as certify_runtime
from skewless.infra.models.runtimes.port import Matrix, Runtime
from skewless.infra.platform.storage.durable import translate_disk_errors
from skewless.infra.platform.storage.names import check_folder_name
from skewless.operations.state.bundle import publish
from skewless.version import __version__
from skewless.workspace import Workspace
from skewless_export import standalone
from skewless_export.edge_log import read_edge_log
from skewless_export.export_certificate import (
    CERTIFICATE,
    ROWS,
    ExportCertificate,
    compare_scores,
    file_digests,
    pack_rows,
    prediction_type,
    this_machine,
    unpack_rows,
)
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.export_rows import ExportRows, export_rows
from skewless_export.native import Toolchain
from skewless_export.readers import read_trees
from skewless_export.targets import ExportTarget, find_target

_SCRIPT = "certify.py"
_MOST_ROWS, _MOST_NUMBERS = 100_000, 20_000_000  # for the tests of nodes
_TEST_ROWS = 32
_NAMED = 3  # rows in an error
_SEED = 7
_FIX = "use another compiler or target, and report it: exports must have the library's bits"
_LOG_FIX = "find out which program and model the device runs, and whether the log has the inputs that it scored"


@dataclass(frozen=True, kw_only=True)
class ModelExport(PlainRecord):
    """An export, or what one would contain.

    Args:
        folder: where its files are.
        size: of its files, bytes.
        certificate: what was compared, and the digests of its files.
    """

    folder: str
    size: int
    certificate: ExportCertificate


@dataclass(frozen=True, kw_only=True)
class RepeatedCertificate(PlainRecord):
    """The certificate of an export, and the same comparison on this machine.

    Args:
        folder: of the export.
        certificate: as it was signed, but for ``scores``, ``tools`` and ``machine``, which are of this machine, and
            for ``measured``, which is empty.
        predictions: the log whose predictions were compared, instead of the rows of the certificate.
    """

    folder: str
    certificate: ExportCertificate
    predictions: str | None = None

    @property
    def error(self) -> PackageError | None:
        """Return what differs here; None: nothing does."""
        return _refusal(self.certificate, _FIX if self.predictions is None else _LOG_FIX)


def export(
    project: Workspace,
    model: str,
    version: str | None = None,
    *,
    to: str = "c",
    out: Path | None = None,
    compiler: str = "gcc",
    runner: str = "",
    training_rows: int = 0,
    dry_run: bool = False,
) -> ModelExport:
    """Write a version of a model as a program or file into a new folder, and certify that it scores as the library.

    Args:
        version: None: the champion.
        to: the target, for example ``c``.
        out: the folder; None: model, version and target in the current folder.
        compiler: command of the C compiler that certifies it.
        runner: command before a program of that compiler, for example ``qemu-aarch64``.
        training_rows: number of rows of the training set, which is read again, that the certificate has, too.

    Raises:
        RequestError: there is no such model or target.
        ConflictError: the folder exists.
        PackageError: there is no champion, the package is altered, its trees cannot be read, or a score differs.
        PlaceError: the compiler is missing or fails.
        StoreError: the database, the storage or a disk failed.
    """
    target = find_target(to)
    version = _champion(project, model) if version is None else version
    folder = Path(f"{model}-{version}-{to}") if out is None else out
    if folder.exists():
        raise ConflictError(f"folder {folder}", "exists", fix="name a new one with --out")
    check_folder_name(folder)
    package = open_package(project.store, model, version)
    exported = _describe(package)
    sample = _training_sample(project, package, training_rows)
    most = min(_MOST_ROWS, _MOST_NUMBERS // exported.table.facts.n_features)
    rows = export_rows(exported.table, {"reference": package.reference.rows, **sample}, most=most)
    toolchain = Toolchain(compiler=compiler, flags=target.flags, runner=runner)
    with tempfile.TemporaryDirectory() as scratch, translate_disk_errors(folder):
        built = Path(scratch) / "export"
        certificate = _build(built, package, exported, rows, target, toolchain)
        error = _refusal(certificate)
        if error is not None:
            raise error
        (built / CERTIFICATE).write_bytes(certificate.to_bytes())
        if not dry_run:
            project.store.check_signer()
            signature = project.store.signer.sign(certificate.to_bytes(), "export certificate")
            (built / SIGNATURE).write_bytes(signature)
            publish(built, folder)
        size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    return ModelExport(folder=str(folder), size=size, certificate=certificate)


def certify(
    project: Workspace, folder: Path, *, compiler: str = "gcc", runner: str = "", predictions: Path | None = None
) -> RepeatedCertificate:
    """Repeat the certificate of an export on this machine, or prove logged predictions of it; changes nothing.

    Args:
        folder: of the export, or its certificate.
        compiler: command of the C compiler.
        runner: command before a program of that compiler.
        predictions: log of the export's predictions, as JSON lines. The library of the package scores its inputs again;
            nothing is compiled.

    Raises:
        PackageError: no trusted key signed the certificate, a file is missing or altered, or the package of the
            predictions is another.
        SourceError: the log cannot be read.
        PlaceError: the folder cannot be read, or the compiler is missing or fails.
    """
    folder = folder.parent if folder.name == CERTIFICATE else folder
    certificate, files = _open_export(project, folder)
    here: dict[str, Any] = {"machine": this_machine(), "measured": {}}
    target = find_target(certificate.target)
    if predictions is None:
        rows, expected = unpack_rows(files[ROWS], certificate)
        toolchain = Toolchain(compiler=compiler, flags=target.flags, runner=runner)
        with tempfile.TemporaryDirectory() as scratch:
            # A copy of the bytes that were checked: the folder may change meanwhile.
            _write(Path(scratch), files)
            actual = target.score(Path(scratch), certificate.stem, rows, toolchain)
        here["tools"] = dict(target.tools(toolchain))
    else:
        rows, actual = read_edge_log(predictions, certificate.n_inputs, certificate.n_outputs)
        expected, library = _library_margins(project, certificate, rows)
        here |= {"library": library, "tools": {}, "kinds": {"logged": len(rows)}}
    here["scores"] = compare_scores(
        rows, expected, actual, certificate.n_outputs, certificate.prediction_type, bound=target.bound
    )
    repeated = ExportCertificate(**{**vars(certificate), **here})
    log = None if predictions is None else str(predictions)
    return RepeatedCertificate(folder=str(folder), certificate=repeated, predictions=log)


def _open_export(project: Workspace, folder: Path) -> tuple[ExportCertificate, dict[str, bytes]]:
    """Return the certificate and the files of an export whose signature and digests are right."""
    text = _read(folder, CERTIFICATE)
    signature = folder / SIGNATURE
    thing = f"export {folder}"
    signed = signature.read_bytes() if signature.is_file() else None
    project.store.trust.check(thing, text, signed, "export certificate")
    certificate = ExportCertificate.from_bytes(text)
    files = {name: _read(folder, name) for name in certificate.files}
    altered = [name for name, digest in file_digests(files).items() if certificate.files[name] != digest]
    if altered:
        raise PackageError(thing, "has an altered file", value=altered[0], fix="export the model again")
    return certificate, files


def _library_margins(project: Workspace, certificate: ExportCertificate, rows: Matrix) -> tuple[Matrix, str]:
    """Return the margins of the package that an export was made of, and the library that gave them."""
    package = open_package(project.store, certificate.model, certificate.version)
    if package.digest != certificate.package:
        thing = f"package {package.name} {package.version}"
        raise PackageError(thing, "is not the one of the export", value=package.digest, fix="use the project of it")
    with closing(open_runtime(package.spec.algorithm, package.model_file)) as runtime:
        certify_runtime(runtime, package.reference, tolerance=package.spec.tolerance)
        return runtime.margin(rows).reshape(len(rows), -1), runtime.runtime_id


def _champion(project: Workspace, model: str) -> str:
    check_known("model", model, sorted({*project.packages.list_models(), *(spec.name for spec in project.models)}))
    version = project.store.aliases.get(model, CHAMPION)
    if version is None:
        raise PackageError(f"model {model}", "has no champion to export", fix="promote a version, or name one")
    return version


def _describe(package: Package) -> ExportModel:
    plan = pinned_plan(package)
    assembler = Assembler(plan, package.plan["vocabularies"])
    name = f"package {package.name} {package.version}"
    table = read_trees(package.spec.algorithm, package.model_file.read_bytes(), name, assembler.labels)
    outputs = {f"{item.name}__{column.name}" for item in plan.transforms for column in item.outputs}
    computed = [label for label in assembler.labels if label in outputs]
    note = "The inputs are the model's vector."
    if actions := [name for name in ("policy", "decisions", "explore") if getattr(package.spec, name)]:
        note += f" It gives scores, and no actions: {' and '.join(actions)} of the model's spec are not in it."
    if computed:
        names = ", ".join(sorted(item.name for item in plan.transforms))
        note += f" It has the outputs of Python transforms ({names}), which the caller computes: {', '.join(computed)}."
    inputs = [
        ModelInput(
            name=ref.label, dtype=str(plan.dtype(ref)), categories=package.plan["vocabularies"].get(ref.label, ())
        )
        for ref in assembler.refs
    ]
    return ExportModel(
        name=package.name, version=package.version, package=package.digest, table=table, inputs=inputs, note=note
    )


def _training_sample(project: Workspace, package: Package, count: int) -> dict[str, Matrix]:
    if not count:
        return {}
    matrix = project.training_set(package.name).matrix
    if matrix.shape[1:] != package.reference.rows.shape[1:]:
        fix = "export without --training-rows, or export a version of the applied plan"
        raise PackageError(f"package {package.name} {package.version}", "has other features than the plan", fix=fix)
    chosen = np.random.default_rng(_SEED).permutation(len(matrix))[:count]
    return {"training": np.ascontiguousarray(matrix[np.sort(chosen)])}


def _build(
    folder: Path,
    package: Package,
    exported: ExportModel,
    rows: ExportRows,
    target: ExportTarget,
    toolchain: Toolchain,
) -> ExportCertificate:
    """Write the files of an export without its certificate; return this."""
    matrix = target.restrict(exported, rows.matrix)
    with closing(open_runtime(package.spec.algorithm, package.model_file)) as runtime:
        certify_runtime(runtime, package.reference, tolerance=package.spec.tolerance)
        margins, predictions = _expected(runtime, matrix)
        library = runtime.runtime_id
    step = max(1, len(matrix) // _TEST_ROWS)
    files = dict(target.write(exported, matrix[::step], margins[::step]))
    folder.mkdir()
    _write(folder, files)
    actual = target.score(folder, exported.identifier, matrix, toolchain)
    facts = exported.table.facts
    has_predictions = actual.shape[1] > facts.n_outputs
    expected = np.concatenate([margins, predictions], axis=1) if has_predictions else margins
    kind = prediction_type(predictions)
    files |= {ROWS: pack_rows(matrix, expected), _SCRIPT: Path(standalone.__file__).read_bytes()}
    for name in (ROWS, _SCRIPT):
        (folder / name).write_bytes(files[name])
    return ExportCertificate(
        model=exported.name,
        version=exported.version,
        package=exported.package,
        target=target.name,
        stem=exported.identifier,
        release=__version__,
        library=library,
        objective=facts.objective,
        n_inputs=facts.n_features,
        n_outputs=facts.n_outputs,
        predictions=has_predictions,
        prediction_type=kind,
        note=exported.note,
        flags=list(target.flags),
        tools=dict(target.tools(toolchain)),
        machine=this_machine(),
        kinds=rows.counts,
        nodes=rows.nodes,
        tested=rows.tested,
        scores=compare_scores(matrix, expected, actual, facts.n_outputs, kind, bound=target.bound),
        files=file_digests(files),
        measured={} if target.measure is None else dict(target.measure(exported, matrix, toolchain)),
    )


def _expected(runtime: Runtime, matrix: Matrix) -> tuple[Matrix, Matrix]:
    margins, predictions = (score(matrix).reshape(len(matrix), -1) for score in (runtime.margin, runtime.score))
    return margins, predictions


def _refusal(certificate: ExportCertificate, fix: str = _FIX) -> PackageError | None:
    problem = certificate.scores.problem
    if problem is None:
        return None
    examples = certificate.scores.examples
    thing = f"export of {certificate.model} {certificate.version}"
    if certificate.scores.bound is not None:
        rows = "; ".join(item.sentence() for item in examples[:_NAMED])
        fix = "export to c or onnx, or give the model inputs of single precision"
        return PackageError(thing, f"{problem}: {rows}", fix=fix)
    value = f"row {examples[0].row}: {examples[0].actual}, not {examples[0].expected}" if examples else None
    return PackageError(thing, problem, value=value, fix=fix)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        fix = "name a folder that `skewless export` has written"
        raise PlaceError(f"file {folder / name}", f"cannot be read: {error.strerror}", fix=fix) from error
