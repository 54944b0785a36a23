"""Writes a tree table as a model repository of Triton for its FIL backend, and emulates how FIL scores it.

FIL calculates in single precision. Thresholds are rounded so that each float32 input keeps its route; what remains is
that the caller rounds its inputs, and that FIL adds leaves in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.dtypes import DType
from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.table import Tree, TreeFacts, TreeNode
from skewless_export.treelite_model import build_checkpoint, expressible_trees, import_treelite

GROVE = 64  # trees that FIL's CPU class adds at a time
BOUND = 1e-5
EMULATION = (
    "was not run. Emulated: FIL's CPU class in single precision; inputs, thresholds and leaves are float32, the leaves "
    f"of {GROVE} trees at a time are added, then these sums. A GPU adds in another order"
)
_EXACT = {DType.FLOAT32, DType.BOOL, DType.STRING}
_CHUNK = 4_096  # rows
_CHECKPOINT = "checkpoint.tl"
_MOST_ROWS = 32_768  # in a request

Floats = NDArray[np.float32]


def write_triton(model: ExportModel) -> Mapping[str, bytes]:
    """Return the files of the repository by name: ``MODEL/config.pbtxt`` and ``MODEL/1/checkpoint.tl``.

    Raises:
        PackageError: Treelite or FIL cannot express the model.
        PlaceError: Treelite is not installed.
    """
    facts = model.table.facts
    trees = expressible_trees(model, guard=True)
    if any(tree.output != number % facts.n_outputs for number, tree in enumerate(trees)):
        raise PackageError(
            f"model {model.name}", "has trees in an order that FIL does not take", fix="export to c or onnx"
        )
    checkpoint = build_checkpoint(facts, [_round_tree(tree) for tree in trees], "float32")
    name = model.identifier
    return {f"{name}/config.pbtxt": _config(model).encode(), f"{name}/1/{_CHECKPOINT}": checkpoint}


def single_precision_rows(model: ExportModel, rows: Matrix) -> Matrix:
    """Return rows in which inputs whose type has no more than single precision are such numbers.

    A number between two of them becomes the lower or the upper one by its last bit, so that neighbours become both.
    """
    exact = [at for at, item in enumerate(model.inputs) if _is_exact(item)]
    result = rows.copy()
    numbers = np.ascontiguousarray(rows[:, exact])
    with np.errstate(over="ignore", under="ignore"):
        nearest = numbers.astype(np.float32)
        is_odd = (numbers.view(np.int64) & 1).astype(np.bool_)
        result[:, exact] = np.where(is_odd, _down(numbers, nearest), -_down(-numbers, -nearest))
    return result


def emulate_triton(folder: Path, rows: Matrix) -> Matrix:
    """Return what FIL's CPU class gives for rows: raw scores, then predictions if the file has a link.

    Args:
        folder: of the model in the repository.
        rows: ``(n, n_inputs)`` float64; they are rounded to float32 first, as a caller does.

    Returns:
        ``(n, n_numbers)`` float64 with float32 numbers.
    """
    treelite = import_treelite()
    model = treelite.Model.deserialize(folder / "1" / _CHECKPOINT)
    header = model.get_header_accessor()
    outputs = np.asarray(header.get_field("class_id"), dtype=np.int64)
    count = int(header.get_field("num_class")[0])
    with np.errstate(over="ignore", under="ignore"):
        inputs = rows.astype(np.float32)
    parts = [
        _add(treelite.gtil.predict_per_tree(model, inputs[at : at + _CHUNK], nthread=1), outputs, count)
        for at in range(0, len(inputs), _CHUNK)
    ]
    margins = np.concatenate(parts)
    link, scale = str(header.get_field("postprocessor")), np.float32(header.get_field("sigmoid_alpha")[0])
    predictions = _predict(margins, link, scale)
    numbers = [margins] if predictions is None else [margins, predictions]
    return np.ascontiguousarray(np.concatenate(numbers, axis=1), dtype=np.float64)


def _is_exact(item: ModelInput) -> bool:
    return item.dtype in _EXACT or bool(item.categories)


def _down(numbers: Matrix, nearest: Floats) -> Matrix:
    """Return the largest float32 numbers that are not above numbers; NaN stays."""
    lower = np.where(nearest.astype(np.float64) > numbers, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return lower.astype(np.float64)


def _round_tree(tree: Tree) -> Tree:
    """Return a tree that sends each float32 number as the given one does."""
    thresholds = np.array([node.threshold for node in tree.nodes], dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        lower = _down(thresholds, thresholds.astype(np.float32))
        upper = -_down(-thresholds, -thresholds.astype(np.float32))
    rounded = np.where([node.test == "<" for node in tree.nodes], upper, lower)
    pairs = zip(tree.nodes, rounded.tolist(), strict=True)
    nodes = [_ask_for_nan(node) if _is_any(node) else node._replace(threshold=threshold) for node, threshold in pairs]
    return Tree(tree.output, tuple(nodes))


def _is_any(node: TreeNode) -> bool:
    return node.test == "<=" and node.threshold == np.inf


def _ask_for_nan(node: TreeNode) -> TreeNode:
    """Return a test that all numbers pass to the left, in a form that FIL, which has `<` alone, gets right for inf."""
    other_side = not node.default_left
    return node._replace(test="<", threshold=-np.inf, default_left=other_side, left=node.right, right=node.left)


def _add(leaves: Any, outputs: NDArray[np.int64], count: int) -> Floats:  # noqa: ANN401 - of Treelite
    """Return the sums of the leaves of each output as FIL's CPU class adds them, ``(n, count)``."""
    values = np.asarray(leaves, dtype=np.float32).reshape(len(leaves), len(outputs), -1)
    total = np.zeros((len(leaves), count), dtype=np.float32)
    for start in range(0, len(outputs), GROVE):
        part = np.zeros_like(total)
        for at in range(start, min(start + GROVE, len(outputs))):
            part[:, outputs[at]] += values[:, at, 0]
        total += part
    return total


def _predict(margins: Floats, link: str, scale: np.float32) -> Floats | None:
    one = np.float32(1.0)
    with np.errstate(over="ignore"):
        if link in {"sigmoid", "multiclass_ova"}:
            return np.asarray(one / (one + np.exp(-scale * margins)), dtype=np.float32)
        if link == "exponential":
            return np.asarray(np.exp(margins), dtype=np.float32)
        if link == "softmax":
            parts = np.exp(margins - margins.max(axis=1, keepdims=True))
            return np.asarray(parts / parts.sum(axis=1, keepdims=True), dtype=np.float32)
    return None


def _config(model: ExportModel) -> str:
    facts = model.table.facts
    order = "\n".join(f"#   {at}: {item.name} ({_describe(item)})" for at, item in enumerate(model.inputs))
    return f"""# {model.name} {model.version}, package {model.package}
# {model.note}
# Inputs, in this order; a missing value is NaN:
{order}
# Output: {_output(facts)}.
name: "{model.identifier}"
backend: "fil"
max_batch_size: {_MOST_ROWS}
input [ {{ name: "input__0" data_type: TYPE_FP32 dims: [ {facts.n_features} ] }} ]
output [ {{ name: "output__0" data_type: TYPE_FP32 dims: [ {facts.n_outputs} ] }} ]
instance_group [ {{ kind: KIND_AUTO }} ]
parameters [
  {{ key: "model_type" value: {{ string_value: "treelite_checkpoint" }} }},
  {{ key: "output_class" value: {{ string_value: "{str(facts.n_outputs > 1).lower()}" }} }},
  {{ key: "predict_proba" value: {{ string_value: "{str(facts.n_outputs > 1).lower()}" }} }}
]
dynamic_batching {{}}
"""


def _describe(item: ModelInput) -> str:
    words = ", ".join(f"{code}: {word!r}" for code, word in enumerate(item.categories))
    return " ".join(f"{item.dtype}; {words}".split()) if words else item.dtype


def _output(facts: TreeFacts) -> str:
    numbers = "one number" if facts.n_outputs == 1 else f"{facts.n_outputs} numbers, one a class"
    if facts.link == "other" or facts.divisor != 1.0:
        return f"raw scores, {numbers}"
    return f"predictions, {numbers}"
