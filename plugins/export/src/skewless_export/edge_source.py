"""Writes a tree table as small C: arrays of nodes, and inputs as ranks of 8 or 16 bits.

A tree compares an input with finitely many thresholds, so the number of thresholds below the input decides each test,
and nothing is rounded. A category becomes the number of a class: categories are in one class if each set of the model
has all or none of them. Leaves and sums stay as they are, so raw scores keep the library's bits.

A vector becomes one code for each *column*: an input with a rule for missing values. Numbers have codes from 1; code 0
passes each test and the highest code fails each, so a missing value needs no test of its own:

    codes of a column with 3 thresholds     0: left    1..4: number of thresholds below, plus 1    4: right

Nodes are stored parent, left subtree, right subtree, and leaves from left to right, both without gaps. So a node needs
one number to find its children: ``skip``, the leaves below its left child. The left child is the next node; the right
child is ``skip`` nodes and its first leaf ``skip`` leaves further.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from skewless.contract.errors import PackageError
from skewless_export.c_source import c_files, c_number, leaf_counts, margin_lines, prepared_text
from skewless_export.export_model import ExportModel
from skewless_export.table import Tree, TreeFacts, TreeNode

_WIDTH = 118
_TYPES = {"uint8_t": 2**8 - 1, "uint16_t": 2**16 - 1, "uint32_t": 2**32 - 1}
MOST_CODE = _TYPES["uint16_t"]
_BYTE = 8
# Bits of a column's rule.
_NAN, _ZERO, _LEFT = 1, 2, 4


class _Column(NamedTuple):
    """An input with a rule: whether NaN and 0 are missing, and whether a missing value goes left."""

    feature: int
    rule: int


class _SetTest(NamedTuple):
    """A test of a category, with the sides of NaN and 0."""

    feature: int
    categories: tuple[int, ...]
    nan_left: bool
    zero_left: bool


@dataclass(kw_only=True)
class _Classes:
    """The classes of one categorical input: categories that all tests treat alike; class 0 is in no set."""

    tests: list[_SetTest]
    codes: list[int] = field(default_factory=list)
    numbers: dict[tuple[bool, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.codes = sorted({code for test in self.tests for code in test.categories})
        self.numbers = {(False,) * len(self.tests): 0}
        self.of_codes = [self._number([code in test.categories for test in self.tests]) for code in self.codes]
        self.of_nan = self._number([test.nan_left for test in self.tests])
        self.of_zero = self._number([test.zero_left for test in self.tests])

    def _number(self, passed: Sequence[bool]) -> int:
        return self.numbers.setdefault(tuple(passed), len(self.numbers))

    def bits(self, test: int) -> list[int]:
        """Return the classes that pass a test, as bytes."""
        result = [0] * ((len(self.numbers) - 1) // _BYTE + 1)
        for passed, number in self.numbers.items():
            result[number // _BYTE] |= passed[test] << number % _BYTE
        return result


def write_edge(model: ExportModel) -> dict[str, bytes]:
    """Return the source and the header of a model, by file name; they are used as those of ``write_c``.

    Raises:
        PackageError: an input has more than 65,534 thresholds or classes of categories, or is number and category.
    """
    return c_files(model, _EdgeWriter(model).lines())


class _EdgeWriter:
    """Numbers the columns, thresholds, classes and tests of a model, and writes them as arrays."""

    def __init__(self, model: ExportModel) -> None:
        self._stem, self._facts = model.identifier, model.table.facts
        self._trees = list(model.table.trees())
        tests = [node for tree in self._trees for node in tree.nodes if not node.is_leaf]
        numbers = [node for node in tests if node.test != "in"]
        self._cuts: dict[int, list[float]] = {node.feature: [] for node in numbers}
        cuts = {(node.feature, _cut(self._facts, node)) for node in numbers}
        for feature, cut in sorted(pair for pair in cuts if not math.isnan(pair[1])):
            self._cuts[feature].append(cut)
        self._columns = sorted({_Column(node.feature, _rule(node)) for node in numbers})
        self._sets = sorted({_set_test(node) for node in tests if node.test == "in"})
        self._classes = {
            feature: _Classes(tests=list(each)) for feature, each in groupby(self._sets, key=attrgetter("feature"))
        }
        sizes = [len(cuts) + 2 for cuts in self._cuts.values()]
        sizes += [len(one.numbers) for one in self._classes.values()]
        self._largest_code = max(sizes, default=1) - 1
        thing, fix = f"model {model.name}", "use --to c"
        if self._cuts.keys() & self._classes.keys():
            raise PackageError(thing, "has an input that is both number and category", fix=fix)
        if max(self._largest_code, len(self._sets)) > MOST_CODE:
            raise PackageError(thing, "has too many thresholds of an input for ranks of 16 bits", fix=fix)

    def lines(self) -> Iterator[str]:
        """Yield the source."""
        yield from _GUARDS.splitlines()
        yield f"typedef {_type_of([self._largest_code])} code_t;"
        yield ""
        yield from self._column_arrays()
        if self._classes:
            yield from self._class_arrays()
        yield from self._tree_arrays()
        yield from self._encode_lines()
        yield from _walk_text(len(self._columns) if self._classes else None).splitlines()
        yield ""
        yield from margin_lines(self._facts, self._stem, self._sum_lines())

    def _column_arrays(self) -> Iterator[str]:
        starts = dict(zip(self._cuts, accumulate(map(len, self._cuts.values()), initial=0), strict=False))
        yield "/* Columns of numbers: input, rule, and its thresholds, ascending. */"
        yield from _array("column_inputs", [column.feature for column in self._columns])
        yield from _array("column_rules", [column.rule for column in self._columns])
        yield from _array("column_starts", [starts[column.feature] for column in self._columns])
        yield from _array("column_counts", [len(self._cuts[column.feature]) for column in self._columns])
        cuts = [c_number(cut, self._facts.input_type) for own in self._cuts.values() for cut in own]
        yield from _array("thresholds", cuts, "input_t")

    def _class_arrays(self) -> Iterator[str]:
        classes = list(self._classes.values())
        yield "/* Columns of categories: input, classes of NaN and 0, and the class of each category. */"
        yield from _array("class_inputs", list(self._classes))
        yield from _array("class_of_nan", [one.of_nan for one in classes])
        yield from _array("class_of_zero", [one.of_zero for one in classes])
        yield from _array("class_starts", list(accumulate((len(one.codes) for one in classes), initial=0)))
        yield from _array("categories", [code for one in classes for code in one.codes])
        yield from _array("classes", [number for one in classes for number in one.of_codes])
        bits = [one.bits(at) for one in classes for at in range(len(one.tests))]
        yield "/* For each test of categories its classes, as bits. */"
        yield from _array("set_starts", list(accumulate(map(len, bits), initial=0))[:-1])
        yield from _array("set_bits", [byte for own in bits for byte in own])

    def _tree_arrays(self) -> Iterator[str]:
        columns = {column: at for at, column in enumerate(self._columns)}
        set_columns = {feature: len(columns) + at for at, feature in enumerate(self._classes)}
        sets = {test: at for at, test in enumerate(self._sets)}
        positions = {feature: {cut: at for at, cut in enumerate(cuts)} for feature, cuts in self._cuts.items()}
        own_columns, ranks, skips, leaves, sizes = [], [], [], [], []
        for tree in self._trees:
            counts = leaf_counts(tree.nodes)
            sizes.append(counts[0])
            for node in _in_order(tree):
                if node.is_leaf:
                    leaves.append(c_number(node.value, self._facts.sum_type))
                    continue
                skips.append(counts[node.left])
                if node.test == "in":
                    own_columns.append(set_columns[node.feature])
                    ranks.append(sets[_set_test(node)])
                else:
                    own_columns.append(columns[_Column(node.feature, _rule(node))])
                    # A test that no number passes is passed by code 0 alone.
                    cut = positions[node.feature].get(_cut(self._facts, node), -1)
                    ranks.append(cut + 2)
        yield "/* Nodes: column, the first code that goes right or the number of a set, leaves below the left child. */"
        yield from _array("node_columns", own_columns)
        yield from _array("node_ranks", ranks)
        yield from _array("node_skips", skips)
        yield from _array("leaf_values", leaves, "sum_t")
        yield "/* Trees: leaves, and the output to which they add. */"
        yield from _array("tree_leaves", sizes)
        if self._facts.n_outputs > 1:
            yield from _array("tree_outputs", [tree.output for tree in self._trees])

    def _encode_lines(self) -> Iterator[str]:
        values = {"NUMBERS": str(len(self._columns)), "CLASSES": str(len(self._classes))}
        values["LOW"], values["HIGH"] = (c_number(float(end)) for end in self._facts.category_range)
        values["WHOLE"] = " && (double)code == x" if self._facts.whole_categories else ""
        values["INPUT"] = prepared_text(self._facts, "input")
        text = (_CLASS_OF + _ENCODE + _ENCODE_CLASSES if self._classes else _ENCODE) + "}\n"
        yield from re.sub(r"@(\w+)@", lambda found: values[found[1]], text).splitlines()
        yield ""

    def _sum_lines(self) -> Iterator[str]:
        output = "tree_outputs[i]" if self._facts.n_outputs > 1 else "0"
        yield f"    code_t codes[{max(1, len(self._columns) + len(self._classes))}];"
        yield "    uint32_t node = 0, leaf = 0;"
        yield "    encode(inputs, codes);"
        yield f"    for (i = 0; i < {len(self._trees)}; i++) {{"
        yield f"        sums[{output}] += walk(codes, node, leaf, tree_leaves[i]);"
        yield "        node += tree_leaves[i] - 1U;"
        yield "        leaf += tree_leaves[i];"
        yield "    }"


def _rule(node: TreeNode) -> int:
    if node.missing == "none":
        return 0  # NaN has the rank of 0
    return _NAN | (_ZERO if node.missing == "zero" else 0) | (_LEFT if node.default_left else 0)


def _set_test(node: TreeNode) -> _SetTest:
    return _SetTest(node.feature, tuple(sorted(node.categories)), node.nan_left, node.zero_left)


def _cut(facts: TreeFacts, node: TreeNode) -> float:
    """Return the largest number that passes a test; NaN: none does."""
    if node.test == "<=":
        return node.threshold
    if node.threshold == -math.inf:
        return math.nan
    kind = np.dtype(facts.input_type).type
    return float(np.nextafter(kind(node.threshold), kind(-np.inf)))


def _in_order(tree: Tree) -> Iterator[TreeNode]:
    """Yield parents before their left subtrees before their right subtrees."""
    stack = [0]
    while stack:
        node = tree.nodes[stack.pop()]
        yield node
        if not node.is_leaf:
            stack += [node.right, node.left]


def _type_of(numbers: Sequence[int]) -> str:
    """Return the smallest type of C that holds numbers."""
    return next(name for name, most in _TYPES.items() if max(numbers, default=0) <= most)


def _walk_text(first_set: int | None) -> str:
    """Return the function that walks a tree.

    Args:
        first_set: the first column of categories; None: there is none.
    """
    test = "codes[node_columns[node]] < node_ranks[node]"
    if first_set is not None:
        in_set = "in_set(codes[node_columns[node]], node_ranks[node])"
        test = f"node_columns[node] < {first_set} ? {test} : {in_set}" if first_set else in_set
    return ("" if first_set is None else _IN_SET) + _WALK.replace("@LEFT@", test)


def _array(name: str, values: Sequence[int] | Sequence[str], kind: str = "") -> Iterator[str]:
    """Yield an array of numbers; C has no empty one."""
    kind = kind or _type_of([int(value) for value in values])
    yield f"static const {kind} {name}[] = {{"
    yield from textwrap.wrap(
        ", ".join(map(str, values or [0])), _WIDTH, initial_indent="    ", subsequent_indent="    "
    )
    yield "};"


_GUARDS = """#include <stdint.h>

#if DBL_MANT_DIG != 53
#error this compiler has short doubles, which changes scores
#endif
"""
_CLASS_OF = """static code_t class_of(double x, uint32_t low, uint32_t high) {
    uint32_t end = high, middle, code;
    if (!(x > @LOW@ && x < @HIGH@)) {
        return 0;
    }
    code = (uint32_t)x;
    while (low < high) {
        middle = low + (high - low) / 2;
        if (categories[middle] < code) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < end && categories[low] == code@WHOLE@ ? classes[low] : 0;
}

"""
_ENCODE = """static uint32_t rank_of(input_t x, uint32_t start, uint32_t count) {
    uint32_t low = start, high = start + count, middle;
    while (low < high) {
        middle = low + (high - low) / 2;
        if (x <= thresholds[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low - start;
}

static void encode(const double *inputs, code_t *codes) {
    int i;
    for (i = 0; i < @NUMBERS@; i++) {
        double input = inputs[column_inputs[i]];
        input_t x = @INPUT@;
        int rule = column_rules[i];
        if ((rule & 1 && x != x) || (rule & 2 && x == 0)) {
            codes[i] = (code_t)(rule & 4 ? 0 : column_counts[i] + 1U);
        } else {
            codes[i] = (code_t)(1U + rank_of(x != x ? 0 : x, column_starts[i], column_counts[i]));
        }
    }
"""
_ENCODE_CLASSES = """    for (i = 0; i < @CLASSES@; i++) {
        double input = inputs[class_inputs[i]];
        input_t x = @INPUT@;
        if (x != x) {
            codes[@NUMBERS@ + i] = class_of_nan[i];
        } else if (x == 0) {
            codes[@NUMBERS@ + i] = class_of_zero[i];
        } else {
            codes[@NUMBERS@ + i] = class_of((double)x, class_starts[i], class_starts[i + 1]);
        }
    }
"""
_IN_SET = """static int in_set(uint32_t code, uint32_t set) {
    return set_bits[set_starts[set] + code / 8] >> (code % 8) & 1;
}

"""
_WALK = """static sum_t walk(const code_t *codes, uint32_t node, uint32_t leaf, uint32_t leaves) {
    while (leaves > 1) {
        uint32_t skip = node_skips[node];
        if (@LEFT@) {
            leaves = skip;
            node += 1;
        } else {
            leaves -= skip;
            node += skip;
            leaf += skip;
        }
    }
    return leaf_values[leaf];
}
"""
