"""Writes a tree table as a model of Treelite, and scores such a file with Treelite's GTIL.

GTIL adds the base after the trees, and changes no input. So the base becomes a first tree of one leaf for each output,
and what a library does to small numbers becomes part of the thresholds. Bits stay those of the library.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, PlaceError
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.export_model import ExportModel
from skewless_export.table import NumberType, Tree, TreeFacts, TreeNode, leaf

_LINKS = {"identity": "identity", "sigmoid": "sigmoid", "softmax": "softmax", "exp": "exponential"}
_MOST_GROWTH = 8  # of the number of nodes
_FIX = "export to c or onnx"


def write_treelite(model: ExportModel) -> bytes:
    """Return the model as a checkpoint of Treelite 4, in the number types of the library.

    Raises:
        PackageError: Treelite cannot express the model.
        PlaceError: Treelite is not installed.
    """
    facts = model.table.facts
    if facts.input_type != facts.sum_type:
        problem = "compares in single precision and adds in double, which Treelite cannot express"
        raise PackageError(f"model {model.name}", problem, fix=_FIX)
    trees = expressible_trees(model)
    for output in range(facts.n_outputs):
        # A sum that starts at 0 is -0.0 never; the library's is if all addends are.
        if all(any(_is_minus_zero(node.value) for node in tree.nodes) for tree in trees if tree.output == output):
            raise PackageError(f"model {model.name}", "can score -0.0, which Treelite cannot express", fix=_FIX)
    return build_checkpoint(facts, trees, facts.input_type)


def _is_minus_zero(value: float) -> bool:
    return value == 0.0 and math.copysign(1.0, value) < 0.0


def score_treelite(path: Path, rows: Matrix) -> Matrix:
    """Return the raw scores of rows, then the predictions if the file has their link, ``(n, n_numbers)`` float64."""
    treelite = import_treelite()
    model = treelite.Model.deserialize(path)
    with np.errstate(over="ignore", under="ignore"):
        inputs: NDArray[Any] = rows.astype(str(model.input_type))
    scores = [treelite.gtil.predict(model, inputs, nthread=1, pred_margin=True)]
    if not model.get_header_accessor().get_field("postprocessor").startswith("identity"):
        scores.append(treelite.gtil.predict(model, inputs, nthread=1))
    columns = [each.reshape(len(rows), -1) for each in scores]
    return np.ascontiguousarray(np.concatenate(columns, axis=1), dtype=np.float64)


def import_treelite() -> Any:  # noqa: ANN401 - a module
    """Return Treelite.

    Raises:
        PlaceError: it is not installed.
    """
    try:
        return importlib.import_module("treelite")
    except ImportError as error:
        fix = "pip install 'skewless[treelite]'"
        raise PlaceError("package 'treelite'", "is not installed", fix=fix) from error


def expressible_trees(model: ExportModel, *, guard: bool = False) -> list[Tree]:
    """Return trees that need no rule beyond Treelite's own, after one tree for the base of each output.

    Treelite compares inputs as they are, sends NaN to a default side, and has no negative category.

    Args:
        guard: whether no test of a category may get a negative number or one outside of the range.

    Raises:
        PackageError: there are no such trees.
    """
    table = model.table
    facts = table.facts
    unknown = "a factor" if facts.scale != 1.0 else "a second base" if facts.bias else ""
    if unknown:
        problem = f"has {unknown} that Treelite cannot express in the library's order"
        raise PackageError(f"model {model.name}", problem, fix=_FIX)
    bases = [Tree(output, (leaf(base),)) for output, base in enumerate(facts.base)]
    return [*bases, *(_Rewriter(facts, tree, guard=guard).tree() for tree in table.trees())]


class _Rewriter:
    """Rewrites a tree for Treelite. It keeps the routes of all inputs.

    A number between -1 and 0 is category 0 for some libraries, and in no set for Treelite. So a first test of such an
    input asks for its sign, and below it the side of each further test of this input is known.
    """

    def __init__(self, facts: TreeFacts, tree: Tree, *, guard: bool) -> None:
        self._facts, self._tree, self._guard = facts, tree, guard
        self._nodes: list[TreeNode] = []
        self._most = 1_000 + _MOST_GROWTH * len(tree.nodes)

    def tree(self) -> Tree:
        """Return the new tree."""
        try:
            self._add(0, {})
        except RecursionError as error:
            raise PackageError("model", "has a tree that is too deep for Treelite", fix=_FIX) from error
        return Tree(self._tree.output, tuple(self._nodes))

    def _add(self, number: int, known: Mapping[int, str]) -> int:
        """Add a node and all below; return its new number. Inputs in ``known`` are ``whole``, ``zero`` or ``none``."""
        node = self._tree.nodes[number]
        side = known.get(node.feature)
        if node.test == "in" and side in {"zero", "none"}:
            # This input has been asked: it is in the sets with 0, or in none.
            return self._add(node.left if side == "zero" and 0 in node.categories else node.right, known)
        at = len(self._nodes)
        if at > self._most:
            problem = "has too many tests of categories that Treelite cannot express"
            raise PackageError("model", problem, fix=_FIX)
        self._nodes.append(node)
        if node.is_leaf:
            return at
        if node.test == "in" and self._facts.whole_categories:
            name = self._facts.feature_names[node.feature]
            problem = "has no category if it has a fraction, which Treelite cannot express"
            raise PackageError(f"feature {name!r}", problem, fix=_FIX)
        if node.test == "in" and side is None and (self._guard or 0 in node.categories):
            negative = TreeNode("<", node.feature, 0.0, "nan", False, (), 0, 0, np.nan)  # noqa: FBT003 - of a tuple
            inner = len(self._nodes)
            self._nodes.append(negative._replace(test="<=", threshold=self._facts.category_range[0]))
            none = self._add(number, {**known, node.feature: "none"})
            zero = self._add(number, {**known, node.feature: "zero"})
            self._nodes[inner] = self._nodes[inner]._replace(left=none, right=zero)
            whole = self._add_whole(number, {**known, node.feature: "whole"})
            self._nodes[at] = negative._replace(left=inner, right=whole)
            return at
        left, right = self._add(node.left, known), self._add(node.right, known)
        self._nodes[at] = self._plain(node)._replace(left=left, right=right)
        return at

    def _add_whole(self, number: int, known: Mapping[int, str]) -> int:
        """Add a test of a category whose input is not negative; return its new number."""
        if not self._guard:
            return self._add(number, known)
        at, feature = len(self._nodes), self._tree.nodes[number].feature
        top = self._facts.category_range[1]
        self._nodes.append(TreeNode("<", feature, top, "nan", True, (), 0, 0, np.nan))  # noqa: FBT003 - of a tuple
        inside, outside = self._add(number, known), self._add(number, {**known, feature: "none"})
        self._nodes[at] = self._nodes[at]._replace(left=inside, right=outside)
        return at

    def _plain(self, node: TreeNode) -> TreeNode:
        """Return a test with its rules for small numbers in its threshold, and its rule for NaN as a side."""
        zero = self._facts.zero
        if node.zero_left != node.passes(0.0):
            name = self._facts.feature_names[node.feature]
            raise PackageError(f"feature {name!r}", "counts 0 as missing, which Treelite cannot express", fix=_FIX)
        threshold = node.threshold
        if node.test != "in" and zero is not None:
            above, below = float(np.nextafter(zero, np.inf)), float(np.nextafter(-zero, -np.inf))
            if node.test == "<=":
                threshold = max(threshold, zero) if node.passes(0.0) else min(threshold, below)
            else:
                threshold = max(threshold, above) if node.passes(0.0) else min(threshold, -zero)
        return node._replace(threshold=threshold, missing="nan", default_left=node.nan_left)


def build_checkpoint(facts: TreeFacts, trees: list[Tree], number_type: NumberType) -> bytes:
    """Return trees as a checkpoint.

    Args:
        facts: of the model; its base is in the trees.
        trees: as ``expressible_trees`` returns them.
        number_type: type of thresholds and leaves.
    """
    import_treelite()
    builder: Any = importlib.import_module("treelite.model_builder")
    classes = facts.n_outputs
    task = "kRegressor" if facts.link in {"identity", "exp", "other"} else "kBinaryClf"
    # A prediction that Treelite cannot express is none: it returns raw scores.
    link = _LINKS.get(facts.link, "identity") if facts.divisor == 1.0 else "identity"
    if classes > 1:
        task = "kMultiClf"
        link = {"sigmoid": "multiclass_ova", "identity": "identity_multiclass"}.get(link, link)
    written = builder.ModelBuilder(
        threshold_type=number_type,
        leaf_output_type=number_type,
        metadata=builder.Metadata(
            num_feature=facts.n_features,
            task_type=task,
            average_tree_output=False,
            num_target=1,
            num_class=[classes],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=builder.TreeAnnotation(
            num_tree=len(trees), target_id=[0] * len(trees), class_id=[tree.output for tree in trees]
        ),
        postprocessor=builder.PostProcessorFunc(name=link, sigmoid_alpha=facts.link_scale),
        base_scores=[0.0] * classes,
    )
    for tree in trees:
        _build_tree(written, tree)
    checkpoint: bytes = written.commit().serialize_bytes()
    return checkpoint


def _build_tree(builder: Any, tree: Tree) -> None:  # noqa: ANN401 - of Treelite
    builder.start_tree()
    for number, node in enumerate(tree.nodes):
        builder.start_node(number)
        children = {"left_child_key": node.left, "right_child_key": node.right}
        if node.is_leaf:
            builder.leaf(node.value)
        elif node.test == "in":
            builder.categorical_test(
                node.feature,
                default_left=node.default_left,
                category_list=list(node.categories),
                category_list_right_child=False,
                **children,
            )
        else:
            builder.numerical_test(
                node.feature, node.threshold, default_left=node.default_left, opname=node.test, **children
            )
        builder.end_node()
    builder.end_tree()


def treelite_tools() -> Mapping[str, str]:
    """Return Treelite, which writes and certifies, with its version."""
    return {"treelite": str(import_treelite().__version__)}
