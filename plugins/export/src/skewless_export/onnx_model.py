"""Writes a tree table as ONNX, and scores such a file with ONNX Runtime.

The trees are one ``TreeEnsemble`` (ai.onnx.ml, version 5) in doubles. It gives each tree's leaf apart, and a cumulative
sum adds them from the first to the last: so the bits do not depend on how many threads a runtime has.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, PlaceError
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.export_model import ExportModel
from skewless_export.table import Tree, TreeFacts, TreeNode, TreeTable

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OPSET, _TREE_OPSET, _IR = 21, 5, 10
_MODES = {"<=": 0, "<": 1, "in": 6}  # BRANCH_LEQ, BRANCH_LT, BRANCH_MEMBER
_NO_CATEGORY, _NEVER = -1.0, -2.0  # the first is in no set; no input is the second
_XGBOOST_CLIP = 88.7  # where XGBoost clips an exponent


def write_onnx(model: ExportModel) -> bytes:
    """Return the model as ONNX: input ``x`` ``(n, n_features)``, outputs ``margin`` and ``prediction``, all doubles.

    Raises:
        PackageError: a feature sends 0 another way than its test in some nodes only, or is a number and a category.
    """
    table, graph = model.table, _Graph()
    kinds = _feature_kinds(table)
    ensemble = _ensemble(table)
    margin = _margins(graph, table, graph.add("TreeEnsemble", [_inputs(graph, table.facts, kinds)], **ensemble))
    graph.name(margin, "margin")
    outputs = ["margin"]
    prediction = _prediction(graph, table.facts, "margin")
    if prediction:
        graph.name(prediction, "prediction")
        outputs.append("prediction")
    written: bytes = graph.model(model, outputs).SerializeToString(deterministic=True)
    return written


def score_onnx(path: Path, rows: Matrix) -> Matrix:
    """Return the margins of rows, then the predictions if the model has them, ``(n, n_numbers)`` float64."""
    runtime = _import("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": rows})
    return np.ascontiguousarray(np.concatenate(outputs, axis=1))


def onnx_tools() -> Mapping[str, str]:
    """Return the runtime that certifies, and the library that writes, with their versions."""
    return {name: str(_import(name).__version__) for name in ("onnx", "onnxruntime")}


def _import(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PlaceError(f"package {name!r}", "is not installed", fix="pip install 'skewless[onnx]'") from error


class _Graph:
    """The operations of a graph, in their order."""

    def __init__(self) -> None:
        self._onnx = _import("onnx")
        self._nodes: list[NodeProto] = []
        self._constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401 - of ONNX
        """Add an operation; return the name of its output."""
        domain = "ai.onnx.ml" if kind == "TreeEnsemble" else ""
        output = f"{kind.lower()}_{len(self._nodes)}"
        arrays = {
            name: self._onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for name, value in attributes.items()
        }
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], domain=domain, **arrays))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; return its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def cast(self, value: str, number_type: str) -> str:
        """Add a change of type."""
        types = {"float32": self._onnx.TensorProto.FLOAT, "float64": self._onnx.TensorProto.DOUBLE}
        return self.add("Cast", [value], to=types[number_type])

    def name(self, value: str, output: str) -> None:
        """Give an output of the model its name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [output]))

    def model(self, model: ExportModel, outputs: Sequence[str]) -> ModelProto:
        """Return the checked model."""
        helper, double = self._onnx.helper, self._onnx.TensorProto.DOUBLE
        facts = model.table.facts
        graph = helper.make_graph(
            self._nodes,
            model.identifier,
            [helper.make_tensor_value_info("x", double, ["n", facts.n_features])],
            [helper.make_tensor_value_info(name, double, ["n", facts.n_outputs]) for name in outputs],
            self._constants,
            doc_string=f"{model.note} Order: {', '.join(item.name for item in model.inputs)}",
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _TREE_OPSET)]
        made: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="skewless")
        helper.set_model_props(made, {"model": model.name, "version": model.version, "package": model.package})
        self._onnx.checker.check_model(made)
        return made


def _feature_kinds(table: TreeTable) -> dict[int, set[str]]:
    """Return how each feature is compared: ``number``, ``category``, and ``zero`` if 0 is missing in its tests."""
    kinds: dict[int, set[str]] = {}
    for tree in table.trees():
        for node in tree.nodes:
            if node.is_leaf:
                continue
            own = {"category" if node.test == "in" else "number"}
            if node.missing == "zero":
                own.add("zero")
            elif node.zero_left != node.passes(0.0):
                own.add("odd")
            known = kinds.setdefault(node.feature, own)
            if known != own or "odd" in own or own == {"category", "zero"}:
                name = table.facts.feature_names[node.feature]
                problem = "is compared in ways that ONNX cannot express together"
                raise PackageError(f"feature {name!r}", problem, fix="export to c")
    return kinds


def _inputs(graph: _Graph, facts: TreeFacts, kinds: Mapping[int, set[str]]) -> str:
    """Return the inputs as the library compares them."""
    x = "x"
    if facts.input_type == "float32":
        x = graph.cast(graph.cast(x, "float32"), "float64")
    if facts.zero is not None:
        is_zero = graph.add("LessOrEqual", [graph.add("Abs", [x]), graph.constant(np.array([facts.zero]))])
        x = graph.add("Where", [is_zero, graph.constant(np.zeros(1)), x])
    columns = {kind: _mask(facts, [at for at, own in kinds.items() if kind in own]) for kind in ("zero", "category")}
    if columns["zero"].any():
        missing = graph.add(
            "And", [graph.add("Equal", [x, graph.constant(np.zeros(1))]), graph.constant(columns["zero"])]
        )
        x = graph.add("Where", [missing, graph.constant(np.array([np.nan])), x])
    if columns["category"].any():
        x = graph.add("Where", [graph.constant(columns["category"]), _codes(graph, facts, x), x])
    return x


def _codes(graph: _Graph, facts: TreeFacts, x: str) -> str:
    """Return categories without their fractions; NaN stays, and a number outside of the range is in no set."""
    low, high = (graph.constant(np.array([float(end)])) for end in facts.category_range)
    is_negative = graph.add("Less", [x, graph.constant(np.zeros(1))])
    whole = graph.add("Where", [is_negative, graph.add("Ceil", [x]), graph.add("Floor", [x])])
    is_known = graph.add("And", [graph.add("Greater", [x, low]), graph.add("Less", [x, high])])
    if facts.whole_categories:
        is_known = graph.add("And", [is_known, graph.add("Equal", [whole, x])])
    code = graph.add("Where", [is_known, whole, graph.constant(np.array([_NO_CATEGORY]))])
    return graph.add("Where", [graph.add("IsNaN", [x]), x, code])


def _mask(facts: TreeFacts, features: Sequence[int]) -> NDArray[np.bool_]:
    mask = np.zeros((1, facts.n_features), dtype=np.bool_)
    mask[0, list(features)] = True
    return mask


def _ensemble(table: TreeTable) -> dict[str, Any]:
    """Return the attributes of the operation: its targets are the trees, each with one leaf."""
    writer = _EnsembleWriter()
    for number, tree in enumerate(table.trees()):
        writer.add(number, tree)
    return writer.attributes(table)


class _EnsembleWriter:
    """Collects the nodes of trees: leaves have numbers of their own, and a tree needs at least one test."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.features: list[int] = []
        self.splits: list[float] = []
        self.modes: list[int] = []
        self.nan_left: list[int] = []
        self.children: tuple[list[int], list[int]] = ([], [])
        self.are_leaves: tuple[list[int], list[int]] = ([], [])
        self.members: list[float] = []
        self.targets: list[int] = []
        self.weights: list[float] = []

    def add(self, number: int, tree: Tree) -> None:
        """Add a tree."""
        self.roots.append(len(self.features))
        if tree.nodes[0].is_leaf:
            at = self._test(TreeNode("<=", 0, np.inf, "nan", True, (), 0, 0, np.nan))  # noqa: FBT003 - of a tuple
            for side in (0, 1):
                self._set_child(at, side, self._leaf(number, tree.nodes[0].value), is_leaf=True)
            return
        waiting = [(0, -1, 0)]
        while waiting:
            node_number, parent, side = waiting.pop()
            node = tree.nodes[node_number]
            if node.is_leaf:
                self._set_child(parent, side, self._leaf(number, node.value), is_leaf=True)
                continue
            at = self._test(node)
            if parent >= 0:
                self._set_child(parent, side, at, is_leaf=False)
            waiting += [(node.right, at, 1), (node.left, at, 0)]

    def attributes(self, table: TreeTable) -> dict[str, Any]:
        """Return the attributes of the operation."""
        members = {"membership_values": np.array(self.members)} if self.members else {}
        return {
            "n_targets": len(self.roots),
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": self.features,
            "nodes_modes": np.array(self.modes, dtype=np.uint8),
            "nodes_splits": np.array(self.splits),
            "nodes_missing_value_tracks_true": self.nan_left,
            "nodes_truenodeids": self.children[0],
            "nodes_trueleafs": self.are_leaves[0],
            "nodes_falsenodeids": self.children[1],
            "nodes_falseleafs": self.are_leaves[1],
            "leaf_targetids": self.targets,
            "leaf_weights": np.array(self.weights).astype(table.facts.sum_type).astype(np.float64),
            **members,
        }

    def _test(self, node: TreeNode) -> int:
        self.features.append(node.feature)
        self.modes.append(_MODES[node.test])
        self.splits.append(0.0 if node.test == "in" else node.threshold)
        self.nan_left.append(int(node.nan_left))
        if node.test == "in":
            # NaN ends a set, which must not be empty.
            self.members += [*(map(float, node.categories) if node.categories else (_NEVER,)), np.nan]
        for side in (0, 1):
            self.children[side].append(0)
            self.are_leaves[side].append(0)
        return len(self.features) - 1

    def _leaf(self, number: int, value: float) -> int:
        self.targets.append(number)
        self.weights.append(value)
        return len(self.weights) - 1

    def _set_child(self, parent: int, side: int, child: int, *, is_leaf: bool) -> None:
        self.children[side][parent], self.are_leaves[side][parent] = child, int(is_leaf)


def _margins(graph: _Graph, table: TreeTable, leaves: str) -> str:
    """Return the sums of the leaves of each output, added from the first tree to the last."""
    facts = table.facts
    leaves = graph.cast(leaves, facts.sum_type)
    outputs = [tree.output for tree in table.trees()]
    sums = []
    for output, base in enumerate(facts.base):
        own = np.array([at for at, each in enumerate(outputs) if each == output], dtype=np.int64)
        columns = graph.add("Gather", [leaves, graph.constant(own)], axis=1)
        # The base is the first number of the sum: one column, as long as the rows.
        rows = graph.add("Shape", ["x"], start=0, end=1)
        shape = graph.add("Concat", [rows, graph.constant(np.ones(1, dtype=np.int64))], axis=0)
        start = graph.add("Expand", [graph.constant(np.array(base, dtype=facts.sum_type)), shape])
        partial = graph.add(
            "CumSum", [graph.add("Concat", [start, columns], axis=1), graph.constant(np.array(1, dtype=np.int64))]
        )
        last = graph.constant(np.array([len(own)], dtype=np.int64))
        sums.append(graph.add("Gather", [partial, last], axis=1))
    total = sums[0] if len(sums) == 1 else graph.add("Concat", sums, axis=1)
    if facts.scale != 1.0:
        total = graph.add("Mul", [total, graph.constant(np.array([facts.scale], dtype=facts.sum_type))])
    total = graph.cast(total, "float64")
    return graph.add("Add", [total, graph.constant(np.array([facts.bias]))]) if facts.bias else total


def _prediction(graph: _Graph, facts: TreeFacts, margin: str) -> str:
    """Return the predictions in the steps of the library; empty if the table does not describe the link."""
    if facts.link == "other":
        return ""
    value = margin
    if facts.divisor != 1.0:
        value = graph.add("Div", [value, graph.constant(np.array([facts.divisor]))])
    if facts.link == "identity":
        return graph.add("Identity", [value])
    value = graph.cast(value, facts.sum_type)

    def number(constant: float) -> str:
        return graph.constant(np.array([constant], dtype=facts.sum_type))

    if facts.link == "softmax":
        value = graph.add("Sub", [value, graph.add("ReduceMax", [value, _axis(graph)], keepdims=1)])
        parts = graph.add("Exp", [value])
        result = graph.add("Div", [parts, graph.add("ReduceSum", [parts, _axis(graph)], keepdims=1)])
    elif facts.link == "exp":
        result = graph.add("Exp", [value])
    else:
        exponent = graph.add("Mul", [value, number(-facts.link_scale)])
        if facts.sum_type == "float32":
            exponent = graph.add("Min", [exponent, number(_XGBOOST_CLIP)])
        result = graph.add("Div", [number(1.0), graph.add("Add", [graph.add("Exp", [exponent]), number(1.0)])])
    return graph.cast(result, "float64")


def _axis(graph: _Graph) -> str:
    return graph.constant(np.array([1], dtype=np.int64))
