"""A model card in Markdown, made only from what is recorded of a version: package, decisions, approvals, origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.contract.plain_record import PlainRecord, plain_value
from skewless.contract.readable import iso_text, length_text
from skewless.infra.models.packages.approvals import Approval, PackageOrigin
from skewless.infra.models.packages.package import Package, open_package, pinned_plan, verify_folder
from skewless.infra.models.packages.signing import SIGNATURE, read_signer
from skewless.operations.models.versions import latest_version
from skewless.training.constraints import constraint_rows
from skewless.workspace import Workspace

_MOST_FEATURES = 15
_BASELINE = "baseline_"


@dataclass(frozen=True, kw_only=True)
class ModelCard(PlainRecord):
    """The facts of a version.

    Args:
        digest: of the package.
        signer: public key that signed it; None: nobody did.
        spec: its ModelSpec as JSON.
        features: of its service, with their importance; the most important first.
        metrics: of its evaluation, and of a constant prediction.
        data: counts and digest of its training set.
        about: times and versions of libraries.
        bounds: limits of features and request fields.
        decision: last decision of the gate; None: there is none.
        aliases: that it holds.
    """

    model: str
    version: str
    digest: str
    signer: str | None
    plan: str
    spec: Mapping[str, Any]
    features: Sequence[tuple[str, float | None]]
    metrics: Mapping[str, float | None]
    data: Mapping[str, Any]
    about: Mapping[str, Any]
    bounds: Mapping[str, Any]
    decision: Mapping[str, Any] | None
    aliases: Sequence[str]
    origin: PackageOrigin | None
    approvals: Sequence[Approval]

    @property
    def text(self) -> str:
        """Return the card as Markdown."""
        return "\n".join(_lines(self)) + "\n"


def card(project: Workspace, model: str, version: str | None = None) -> ModelCard:
    """Return the card of a version; changes nothing.

    Args:
        version: None: the latest.

    Raises:
        PackageError: the version does not exist, or is altered.
    """
    store = project.store
    version = latest_version(project, model) if version is None else version
    package = open_package(store, model, version)
    signature = package.path / SIGNATURE
    decisions = store.decisions.read_latest_first(model)
    return ModelCard(
        model=model,
        version=version,
        digest=package.digest,
        signer=read_signer(signature.read_bytes()) if signature.exists() else None,
        plan=pinned_plan(package).hash,
        spec=package.spec.as_dict(),
        features=_features(package),
        metrics=dict(package.metrics),
        data=dict(package.fingerprint),
        about={name: value for name, value in package.about.items() if name != "importance"},
        bounds=dict(package.bounds),
        decision=next((item for item in decisions if item["version"] == version), None),
        aliases=[name for name in store.aliases.names(model) if store.aliases.get(model, name) == version],
        origin=store.approvals.origin(model, verify_folder(package.path, model, version, store.trust).content),
        approvals=store.approvals.read(model, version),
    )


def _features(package: Package) -> list[tuple[str, float | None]]:
    importance: Mapping[str, float] = package.about.get("importance", {})
    named = {name: importance.get(name) for name in importance}
    return sorted(named.items(), key=lambda item: (-(item[1] or 0.0), item[0]))


def _lines(card: ModelCard) -> Iterator[str]:
    spec, data = card.spec, card.data
    yield f"# {card.model} {card.version}"
    yield ""
    yield from _table(("fact", "value"), _facts(card))
    yield "\n## Data\n"
    labels = spec["labels"]
    counts = data.get("counts", {})
    yield from _label_sentences(labels)
    yield f"{data['train_rows']:,} rows trained; {data['test_rows']:,} later rows tested."
    yield ""
    kind = "label rows and predictions" if "predictions" in counts else "rows of the label table"
    yield from _table((kind, "number"), sorted(counts.items()))
    if "weights" in data:
        yield ""
        sizes = [(name, item["rows"], item["effective"], item["largest"]) for name, item in data["weights"].items()]
        yield from _table(("weighted rows", "number", "effective number", "largest weight"), sizes)
    yield "\n## Evaluation\n"
    names = [name for name in card.metrics if not name.startswith(_BASELINE)]
    rows = [(name, card.metrics[name], card.metrics.get(_BASELINE + name)) for name in names]
    yield from _table(("metric", "model", "constant prediction"), rows)
    yield "\n## Gate\n"
    gate = spec["gate"]
    yield from _table(("rule", "value"), sorted(gate.items()))
    yield ""
    yield "Not judged yet." if card.decision is None else _decision(card.decision)
    slices = [] if card.decision is None else card.decision.get("slices", [])
    if slices:
        yield ""
        columns = ("slice", "rows", "version", "champion", "at least", "at most")
        yield from _table(columns, [_slice(item) for item in slices])
    yield "\n## Features\n"
    yield f"{len(card.features)} features of the service `{spec['service']}`; the most important:"
    yield ""
    yield from _table(("feature", "importance (gain)"), card.features[:_MOST_FEATURES])
    constraints = constraint_rows(card.about)
    if constraints:
        yield "\n## Constraints\n"
        yield from _table(("feature", "constraint"), constraints)
    limits = {**card.bounds.get("features", {}), **card.bounds.get("fields", {})}
    if limits:
        yield "\n## Limits of inputs\n"
        yield from _table(("input", "least", "most", "allowed"), [_limit(*item) for item in sorted(limits.items())])
    yield "\n## Approvals\n"
    approved = [(iso_text(item.at_us), item.by, item.reason) for item in card.approvals]
    yield from _table(("at", "by", "reason"), approved) if approved else ["None."]


def _label_sentences(labels: Mapping[str, Any]) -> Iterator[str]:
    table = labels if "path" in labels else labels["table"]
    if "path" not in labels:
        maturity = length_text(labels["maturity"])
        known = "when they arrived" if labels["known"] == "arrived" else "as their sender declared"
        yield f"Labels are outcomes of logged predictions, known {known}, mature after {maturity}."
        missing = labels["missing"]
        yield f"A prediction without an outcome {'is skipped' if missing is None else f'has the label {missing:g}'}."
        yield f"The vectors are {labels['vectors']}."
        if labels["observed"]:
            yield f"Only predictions with the action {' or '.join(labels['observed'])} are used."
        if labels["weighted"]:
            yield f"Their weight is the inverse of their propensity, at most {labels['max_weight']:g}."
    if table is not None:
        yield f"Labels `{table['label']}` of `{table['path']}`, known at `{table['known_time']}`."


def _facts(card: ModelCard) -> Iterator[tuple[str, object]]:
    spec, about, origin = card.spec, card.about, card.origin
    yield "task", spec["task"]
    yield "algorithm", f"{spec['algorithm']} ({about.get('library')}, Python {about.get('python')})"
    yield "trained at", about.get("trained_at")
    yield "time mode", about.get("time_mode")
    yield "decisions", ", ".join(f"{name} from {least}" for name, least in spec["decisions"].items()) or None
    policy = spec.get("policy")
    if policy is not None:
        lists = ", ".join(f"{name} ({column})" for name, column in policy["lists"].items()) or "none"
        actions, reads = ", ".join(policy["actions"]), ", ".join(("score", *policy["reads"]))
        yield "policy", f"{policy['function']['function']}: {actions}; reads {reads}; lists: {lists}"
    explore = spec.get("explore")
    if explore is not None:
        yield "exploration", f"{explore['share']:.2%} of the predictions get {explore['action']}"
    yield "missing features", spec["missing"]
    yield "aliases", ", ".join(card.aliases) or None
    yield "package", f"sha256:{card.digest}"
    yield "training set", f"sha256:{card.data.get('dataset')}"
    yield "plan", card.plan
    yield "signed by", card.signer
    if origin is not None:
        yield (
            "adopted from",
            f"version {origin.version}, package sha256:{origin.manifest}, bundle sha256:{origin.bundle}",
        )


def _decision(decision: Mapping[str, Any]) -> str:
    verdict = "Passed" if decision["promote"] else "Not passed"
    return f"{verdict} at {iso_text(decision['at_us'])}: {_escape(decision['reason'])}."


def _slice(item: Mapping[str, Any]) -> tuple[object, ...]:
    name = f"{item['column']} {item['value']}"
    return (name, item["rows"], item["candidate"], item["champion"], item["low"], item["high"])


def _limit(name: str, limit: Mapping[str, Any]) -> tuple[object, ...]:
    allowed = limit.get("allowed")
    return name, limit.get("low"), limit.get("high"), None if allowed is None else ", ".join(map(str, allowed))


def _table(columns: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:,.0f}"  # noqa: PLR2004
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _escape(str(plain_value(value)))


def _escape(text: str) -> str:
    """Return a text that cannot end a cell, or begin a tag: names and reasons come from people."""
    flat = " ".join(text.split())
    for sign, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("`", "\\`")):
        flat = flat.replace(sign, safe)
    return flat
