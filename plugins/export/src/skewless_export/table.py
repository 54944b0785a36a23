"""The tree table: all trees of a model as one Arrow table, from which every export is written.

A row is scored in this order, and each step has the bits of the library that trained the model:

1. Each input becomes a number of ``input_type``. With ``zero``, an input of at most this magnitude becomes 0.
2. Each tree is walked from its node 0 to a leaf, whose ``value`` is added to its output, as numbers of ``sum_type``.
   Trees are added in the order of the table; an output starts at its ``base``.
3. The margin is ``scale * sum + bias``. The library calls it the raw score.
4. The prediction is the link of ``margin / divisor``.

| column | type | meaning |
|---|---|---|
| tree | int32 | number of the tree, in the order of the sum |
| output | int32 | output to which the tree adds, below ``n_outputs`` |
| node | int32 | number within the tree, from 0 without gaps; 0 is the root |
| test | string | ``<=`` or ``<``: left if ``x test threshold``; ``in``: left if the category is in the set; ``leaf`` |
| feature | int32 | index of the input; -1 in a leaf |
| threshold | float64 | may be infinite; NaN where nothing is compared with it |
| missing | string | ``none``: NaN counts as 0; ``zero``: NaN and 0 go to the default side; ``nan``: only NaN does |
| default_left | bool | the default side |
| categories | list<int64> | the set of ``in``, ascending; null otherwise |
| left, right | int32 | nodes of the same tree; -1 in a leaf |
| value | float64 | of a leaf; NaN otherwise |

A category is an input whose fraction is cut off (towards 0). An input is in no set if it is outside of
``category_range``, whose ends are exclusive, or, with ``whole_categories``, if it has a fraction.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import numbers
from skewless.contract.errors import PackageError

Test = Literal["<=", "<", "in", "leaf"]
Missing = Literal["none", "zero", "nan"]
NumberType = Literal["float32", "float64"]
Link = Literal["identity", "sigmoid", "softmax", "exp", "other"]
"""``sigmoid``: ``1 / (1 + exp(-link_scale * x))``; ``other``: no table describes it, so only margins are known."""

_FACTS = b"skewless.trees"
_FORMAT = 1
_SCHEMA = pa.schema(
    [
        pa.field("tree", pa.int32(), nullable=False),
        pa.field("output", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("test", pa.string(), nullable=False),
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("missing", pa.string(), nullable=False),
        pa.field("default_left", pa.bool_(), nullable=False),
        pa.field("categories", pa.list_(pa.int64())),
        pa.field("left", pa.int32(), nullable=False),
        pa.field("right", pa.int32(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


class TreeNode(NamedTuple):
    """A row of the table without its tree; the module's text says what the fields mean."""

    test: Test
    feature: int
    threshold: float
    missing: Missing
    default_left: bool
    categories: tuple[int, ...]
    left: int
    right: int
    value: float

    @property
    def is_leaf(self) -> bool:
        """Return whether a row ends here."""
        return self.test == "leaf"

    @property
    def nan_left(self) -> bool:
        """Return whether NaN goes left, however the node says it."""
        return self.passes(0.0) if self.missing == "none" else self.default_left

    @property
    def zero_left(self) -> bool:
        """Return whether 0 goes left, however the node says it."""
        return self.default_left if self.missing == "zero" else self.passes(0.0)

    def passes(self, value: float) -> bool:
        """Return whether a number or category passes the test alone, without the rules of missing values."""
        if self.test == "in":
            return value in self.categories
        return value <= self.threshold if self.test == "<=" else value < self.threshold


class Tree(NamedTuple):
    """A tree: the output to which it adds, and its nodes; node 0 is the root."""

    output: int
    nodes: tuple[TreeNode, ...]


def leaf(value: float) -> TreeNode:
    """Return a leaf."""
    return TreeNode("leaf", -1, np.nan, "none", False, (), -1, -1, value)  # noqa: FBT003 - of a tuple


@dataclass(frozen=True, kw_only=True)
class TreeFacts:
    """The facts of a whole model.

    Args:
        algorithm: the library that trained it: ``lightgbm``, ``xgboost``, ``catboost`` or ``sklearn``.
        feature_names: names of the inputs, in the order of the vector; those of the library if no plan names them.
        n_outputs: numbers per row: the classes of a multiclass model, otherwise 1.
        objective: the library's text about its objective, for people.
        link: from margin to prediction.
        link_scale: factor of the margin in the link.
        input_type: type in which inputs are compared.
        sum_type: type in which leaves are added.
        base: start of each output's sum, ``n_outputs`` numbers.
        zero: inputs of at most this magnitude are 0; None: inputs are not changed.
        category_range: categories between these numbers (exclusive) can be in a set.
        whole_categories: whether an input with a fraction is in no set.
        scale: factor of the sum; 1: none.
        bias: added to each output after the factor; empty: nothing is added.
        divisor: of the margin, before the link.
    """

    algorithm: str
    feature_names: tuple[str, ...]
    n_outputs: int
    objective: str
    link: Link
    link_scale: float = 1.0
    input_type: NumberType = "float64"
    sum_type: NumberType = "float64"
    base: tuple[float, ...]
    zero: float | None = None
    category_range: tuple[float, float] = (-1.0, 2.0**31)
    whole_categories: bool = False
    scale: float = 1.0
    bias: tuple[float, ...] = ()
    divisor: float = 1.0

    @property
    def n_features(self) -> int:
        """Return the number of inputs."""
        return len(self.feature_names)


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeTable:
    """The trees of a model.

    Args:
        facts: of the whole model.
        nodes: one row per node, by tree and node; the module's text has its columns.
    """

    facts: TreeFacts
    nodes: pa.Table

    @classmethod
    def from_trees(cls, facts: TreeFacts, trees: Iterable[Tree]) -> TreeTable:
        """Make a table from trees, in the order of the sum.

        Raises:
            PackageError: the model has no tree, or a node refers to a missing feature or output.
        """
        rows = [
            (number, tree.output, at, *node) for number, tree in enumerate(trees) for at, node in enumerate(tree.nodes)
        ]
        columns = dict(zip(_SCHEMA.names, zip(*rows, strict=True), strict=True)) if rows else {}
        pairs = zip(columns["test"], columns["categories"], strict=True) if rows else ()
        columns["categories"] = tuple(sorted(codes) if test == "in" else None for test, codes in pairs)
        nodes = pa.table({name: pa.array(columns.get(name, ()), _SCHEMA.field(name).type) for name in _SCHEMA.names})
        nodes = nodes.cast(_SCHEMA)
        if not rows or not _fits(nodes, facts):
            thing = f"{facts.algorithm} model"
            raise PackageError(thing, "has trees that do not fit its inputs and outputs", fix="train it again")
        return cls(facts=facts, nodes=nodes)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> TreeTable:
        """Return the model of an Arrow table that ``to_arrow`` has made.

        Raises:
            PackageError: it is another table.
        """
        try:
            content = json.loads((table.schema.metadata or {})[_FACTS])
            is_known = content.pop("format") == _FORMAT and table.schema.remove_metadata() == _SCHEMA
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
            facts = TreeFacts(**values)
        except (KeyError, TypeError, ValueError):
            is_known = False
        if not is_known:
            fix = "name a file that `skewless export --to table` has written"
            raise PackageError("tree table", "has another format", fix=fix)
        return cls(facts=facts, nodes=table.replace_schema_metadata())

    def to_arrow(self) -> pa.Table:
        """Return the table with the facts as JSON in its metadata, under ``skewless.trees``."""
        content = {"format": _FORMAT, **asdict(self.facts)}
        return self.nodes.replace_schema_metadata({_FACTS: json.dumps(content, sort_keys=True).encode()})

    def to_bytes(self) -> bytes:
        """Return the table as a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(self.to_arrow(), buffer)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> TreeTable:
        """Return the model of a Parquet file with the bytes of ``to_bytes``.

        Raises:
            PackageError: it is another file.
        """
        try:
            return cls.from_arrow(pq.read_table(path))
        except (OSError, pa.ArrowException) as error:
            fix = "name a file that `skewless export --to table` has written"
            raise PackageError(f"tree table {path.name!r}", f"cannot be read: {error}", fix=fix) from error

    def trees(self) -> Iterator[Tree]:
        """Yield the trees in the order of the sum."""
        columns = {name: self.nodes[name].to_pylist() for name in _SCHEMA.names}
        columns["categories"] = [tuple(codes or ()) for codes in columns["categories"]]
        heads = zip(columns["tree"], columns["output"], strict=True)
        nodes = map(TreeNode._make, zip(*(columns[name] for name in TreeNode._fields), strict=True))
        for (_, output), rows in groupby(zip(heads, nodes, strict=True), key=itemgetter(0)):
            yield Tree(output, tuple(node for _, node in rows))

    def thresholds(self) -> list[tuple[int, float]]:
        """Return the distinct (feature, threshold) pairs, and (feature, category) of the sets, sorted."""
        pairs = {
            (node.feature, value)
            for tree in self.trees()
            for node in tree.nodes
            if not node.is_leaf
            for value in (map(float, node.categories) if node.test == "in" else (node.threshold,))
        }
        return sorted(pairs)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column of numbers, shape ``(n_nodes,)``."""
        return numbers(self.nodes[name])


def _fits(nodes: pa.Table, facts: TreeFacts) -> bool:
    feature, output = numbers(nodes["feature"]), numbers(nodes["output"])
    sizes = {len(facts.base), len(facts.bias) or facts.n_outputs}
    return bool(feature.max() < facts.n_features and output.max() < facts.n_outputs and sizes == {facts.n_outputs})
