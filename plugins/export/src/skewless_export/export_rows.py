"""Rows for the certificate of an export: each node of a model is reached by rows on both sides of its test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from skewless.infra.models.runtimes.certification import reference_rows
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.table import TreeFacts, TreeNode, TreeTable

_RANDOM_ROUNDS = 3
_MOST_CODES = 64  # per node
_ODD_CODES = (-0.5, -1.0, 0.5, 2.0**24, 2.0**31 - 1, 2.0**31, 2.0**32 + 1, 2.0**63, -(2.0**31), math.inf, -math.inf)
_ODD_ROUNDS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRows:
    """Rows by their kind.

    Args:
        kinds: kind -> its rows, ``(n, n_features)`` float64.
        nodes: number of tests in the model.
        tested: number of tests that rows reach, and leave on both sides.
    """

    kinds: Mapping[str, Matrix]
    nodes: int
    tested: int

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of rows by kind."""
        return {kind: len(rows) for kind, rows in self.kinds.items()}

    @property
    def matrix(self) -> Matrix:
        """Return all rows, C-contiguous."""
        return np.ascontiguousarray(np.concatenate(list(self.kinds.values())))


def export_rows(table: TreeTable, given: Mapping[str, Matrix], *, most: int, seed: int = 7) -> ExportRows:
    """Return the rows of a certificate.

    Args:
        table: the model.
        given: further rows by kind, for example the reference rows of the package.
        most: number of rows at most for the tests of nodes; tests beyond are chosen at random.
        seed: of all choices; the same arguments give the same rows.
    """
    rng = np.random.default_rng(seed)
    facts, thresholds = table.facts, table.thresholds()
    random = [reference_rows(thresholds, facts.n_features, seed + at) for at in range(_RANDOM_ROUNDS)]
    directed = list(_directed(table))
    order = rng.permutation(len(directed))
    chosen: list[Matrix] = []
    tested = 0
    for at in order:
        if len(chosen) + len(directed[at].edges) > most:
            break
        chosen += directed[at].edges
        tested += directed[at].is_tested
    # The other rows only after the edges of all nodes.
    for at in order:
        chosen += directed[at].others[: most - len(chosen)]
    kinds = {**given, "random": np.concatenate(random)}
    categorical = sorted({int(node.feature) for tree in table.trees() for node in tree.nodes if node.test == "in"})
    if categorical:
        kinds["odd categories"] = _odd_categories(kinds["random"], categorical, rng)
    kinds["nodes"] = np.array(chosen).reshape(len(chosen), facts.n_features)
    return ExportRows(kinds=kinds, nodes=len(directed), tested=tested)


def _odd_categories(rows: Matrix, categorical: list[int], rng: np.random.Generator) -> Matrix:
    odd = rows[rng.integers(0, len(rows), len(_ODD_CODES) * _ODD_ROUNDS)]
    codes = np.tile(np.array(_ODD_CODES), _ODD_ROUNDS)
    for index in categorical:
        odd[:, index] = rng.permutation(codes)
    return odd


@dataclass(kw_only=True)
class _NodeTest:
    """The rows that test one node.

    Args:
        edges: on both sides of its threshold, or in its set and out of it.
        others: missing, 0, and farther away.
        is_tested: whether the edges leave it on both sides.
    """

    edges: list[Matrix] = field(default_factory=list)
    others: list[Matrix] = field(default_factory=list)
    is_tested: bool = False


@dataclass(frozen=True, kw_only=True)
class _Allowed:
    """The values of one input that reach a node: numbers from low to high, or categories, and perhaps NaN."""

    low: float = -math.inf
    high: float = math.inf
    codes: frozenset[int] | None = None
    excluded: frozenset[int] = frozenset()
    nan: bool = True

    def value(self) -> float:
        """Return a value; it may be outside if there is none."""
        if self.codes is not None:
            left = self.codes - self.excluded
            return float(min(left)) if left else math.nan
        if self.excluded:
            return float(next(code for code in range(len(self.excluded) + 1) if code not in self.excluded))
        if self.low > self.high:
            return math.nan
        if self.low <= 1.0 <= self.high:
            return 1.0
        return self.low if math.isfinite(self.low) else self.high


def _directed(table: TreeTable) -> Iterator[_NodeTest]:
    """Yield the rows of each test; a row follows the path to its node, as far as numbers allow it."""
    facts = table.facts
    for tree in table.trees():
        stack: list[tuple[int, dict[int, _Allowed]]] = [(0, {})]
        while stack:
            at, allowed = stack.pop()
            node = tree.nodes[at]
            if node.is_leaf:
                continue
            yield _test_node(facts, tree.nodes, at, allowed)
            own = allowed.get(node.feature, _Allowed())
            for is_left, child in ((True, node.left), (False, node.right)):
                stack.append((child, {**allowed, node.feature: _narrow(facts, node, own, is_left=is_left)}))


def _narrow(facts: TreeFacts, node: TreeNode, own: _Allowed, *, is_left: bool) -> _Allowed:
    nan = own.nan and node.nan_left == is_left
    if node.test == "in":
        codes = frozenset(node.categories)
        if not is_left:
            return _Allowed(codes=own.codes, excluded=own.excluded | codes, nan=nan)
        return _Allowed(codes=codes if own.codes is None else own.codes & codes, excluded=own.excluded, nan=nan)
    # The last number that goes left, and the first that goes right.
    below, above = _edge(facts, node)
    if is_left:
        return _Allowed(low=own.low, high=min(own.high, below), nan=nan)
    low = math.inf if node.threshold == math.inf and node.test == "<=" else max(own.low, above)
    return _Allowed(low=low, high=-math.inf if low == math.inf else own.high, nan=nan)


def _edge(facts: TreeFacts, node: TreeNode) -> tuple[float, float]:
    at = np.float32(node.threshold) if facts.input_type == "float32" else np.float64(node.threshold)
    infinity = type(at)(np.inf)
    with np.errstate(over="ignore", under="ignore"):
        if node.test == "<=":
            return float(at), float(np.nextafter(at, infinity))
        return float(np.nextafter(at, -infinity)), float(at)


def _test_node(facts: TreeFacts, nodes: tuple[TreeNode, ...], at: int, allowed: Mapping[int, _Allowed]) -> _NodeTest:
    node = nodes[at]
    base = np.full(facts.n_features, np.nan)
    for feature, own in allowed.items():
        base[feature] = own.value()
    if node.test == "in":
        codes = sorted(node.categories)[:_MOST_CODES]
        edges = [*map(float, codes), *(code + 1.0 for code in codes), math.nan]
        others = [0.0]
    else:
        below, above = _edge(facts, node)
        edges = [below, above]
        others = [math.nan, 0.0, float(np.nextafter(below, -np.inf)), float(np.nextafter(above, np.inf))]
    test, sides = _NodeTest(), set()
    for value in dict.fromkeys([*edges, *others]):
        row = base.copy()
        row[node.feature] = value
        side = _side(facts, nodes, at, row)
        if side is not None:
            is_edge = value in edges
            (test.edges if is_edge else test.others).append(row)
            sides |= {side} if is_edge else set()
    # Nothing but NaN is above an infinite threshold.
    test.is_tested = len(sides) == len(("left", "right")) or (sides == {True} and math.isinf(edges[-1]))
    return test


def _side(facts: TreeFacts, nodes: tuple[TreeNode, ...], target: int, row: Matrix) -> bool | None:
    """Return whether a row leaves a node to the left; None: it does not reach it."""
    at = 0
    while not nodes[at].is_leaf:
        is_left = goes_left(facts, nodes[at], float(row[nodes[at].feature]))
        if at == target:
            return is_left
        at = nodes[at].left if is_left else nodes[at].right
    return None


def goes_left(facts: TreeFacts, node: TreeNode, value: float) -> bool:
    """Return whether an input goes left, by the text of the table."""
    if facts.input_type == "float32":
        with np.errstate(over="ignore", under="ignore"):
            value = float(np.float32(value))
    if facts.zero is not None and abs(value) <= facts.zero:
        value = 0.0
    if math.isnan(value):
        return node.nan_left
    if value == 0.0:
        return node.zero_left
    if node.test == "in":
        low, high = facts.category_range
        is_whole = not facts.whole_categories or value.is_integer()
        return low < value < high and is_whole and int(value) in node.categories
    return value <= node.threshold if node.test == "<=" else value < node.threshold
