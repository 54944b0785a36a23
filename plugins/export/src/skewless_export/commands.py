"""Commands that take models out of the server: ``export`` and ``certify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from skewless.commands.command import UNCHANGED, DryRun, ModelName, argument, command, option
from skewless.commands.output import Session, facts_table
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless_export.export_certificate import ExportCertificate

ExportedVersion = Annotated[str | None, argument("VERSION", "For example 000003; default: the champion.")]
To = Annotated[str, option("--to TARGET", "Kind of export: c, edge, table or wasm.")]
OutFolder = Annotated[
    Path | None, option("--out DIR", "New folder; default: model, version and target, in the current folder.")
]
Compiler = Annotated[str, option("--compiler COMMAND", "C compiler that certifies the export.")]
Runner = Annotated[
    str, option("--runner COMMAND", "Command before a program of this compiler, such as qemu-aarch64; default: none.")
]
TrainingRows = Annotated[
    int, option("--training-rows N", "Certify also with N rows of the training set, which is read again.", min=0)
]
ExportFolder = Annotated[Path, argument("FILE", "Folder that `skewless export` has written, or its certificate.json.")]

PredictionLog = Annotated[
    Path | None, option("--predictions FILE", "JSON lines of the export's predictions, to compare with the library.")
]


@command(
    "Export a model as a program or file, with a certificate.",
    "fraud --to c --repo my-project",
    "fraud 000003 --to c --compiler 'aarch64-linux-gnu-gcc -static' --runner qemu-aarch64",
    "fraud --to table --out fraud-trees --dry-run",
    section="Train",
)
def export(
    session: Session,
    model: ModelName,
    version: ExportedVersion = None,
    *,
    to: To = "c",
    out: OutFolder = None,
    compiler: Compiler = "gcc",
    runner: Runner = "",
    training_rows: TrainingRows = 0,
    dry_run: DryRun = False,
) -> None:
    """Write a version as a program or file that gives the library's raw scores bit for bit.

    A signed certificate says which rows were compared, with which tools. An export whose scores differ is not written.
    """
    from skewless_export.export import export as write_export

    with session.working("exporting and certifying") as project:
        written = write_export(
            project,
            model,
            version,
            to=to,
            out=out,
            compiler=compiler,
            runner=runner,
            training_rows=training_rows,
            dry_run=dry_run,
        )
    certificate = written.certificate
    facts = [("folder", written.folder), ("bytes", written.size), *_facts(certificate)]
    title = "export (dry run)" if dry_run else "export"
    session.show(
        written.as_dict() | {"dry_run": dry_run},
        facts_table(title, facts),
        certificate.note,
        *([UNCHANGED] if dry_run else []),
    )


@command(
    "Repeat the certificate of an export on this machine.",
    "fraud-000003-c --repo my-project",
    "fraud-000003-c/certificate.json --compiler clang --json",
    "fraud-000003-edge --predictions device.jsonl",
    section="Train",
)
def certify(
    session: Session,
    folder: ExportFolder,
    *,
    compiler: Compiler = "gcc",
    runner: Runner = "",
    predictions: PredictionLog = None,
) -> None:
    """Check the signature and the files of an export, and compare its scores again on this machine.

    With `--predictions`, compare the predictions that a device has logged, instead of those of the certificate.
    The exit code is 8 if a file is altered, the signer is not trusted, or a raw score has other bits.
    """
    from skewless_export.export import certify as certify_export

    with session.working("certifying") as project:
        repeated = certify_export(project, folder, compiler=compiler, runner=runner, predictions=predictions)
    facts = [("folder", repeated.folder), *_facts(repeated.certificate)]
    session.end(repeated.as_dict(), facts_table("certificate", facts), error=repeated.error)


def _facts(certificate: ExportCertificate) -> list[tuple[str, Any]]:
    scores = certificate.scores
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in certificate.kinds.items())
    tools = ", ".join(f"{name} {text}" for name, text in certificate.tools.items())
    facts: list[tuple[str, Any]] = [
        ("model", f"{certificate.model} {certificate.version}"),
        ("target", certificate.target),
        ("library", certificate.library),
        *([("tools", tools)] if tools else []),
        ("rows", kinds),
        *([("thresholds tested", f"{certificate.tested:,} of {certificate.nodes:,}")] if "nodes" in kinds else []),
        ("raw scores", f"{count_text(scores.different, 'row')} of {scores.rows:,} differ"),
    ]
    if scores.bound is not None:
        facts.append(("predictions", f"differ by at most {float(scores.gap):.2g}, of {scores.bound:g} allowed"))
    if scores.prediction_ulps is not None:
        facts.append(("predictions", f"differ by at most {float(scores.prediction_ulps):g} units in the last place"))
    return [*facts, *certificate.measured.items()]
