"""Writes a tree table as C99: one file without allocations, its header, and a test program.

All numbers are hexadecimal, so no compiler rounds them. The code needs IEEE arithmetic without contraction
(``-ffp-contract=off``) and a ``FLT_EVAL_METHOD`` of 0; it refuses to compile otherwise, where C can say so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless_export.c_link import link_lines
from skewless_export.export_model import ExportModel, ModelInput
from skewless_export.table import Tree, TreeFacts, TreeNode

FLAGS = ("-std=c99", "-O2", "-ffp-contract=off")
_WORD_BITS = 32
_PER_LINE = 8


def write_c(model: ExportModel) -> dict[str, bytes]:
    """Return the source and the header of a model, by file name."""
    return c_files(model, _source_lines(model))


def c_files(model: ExportModel, lines: Iterable[str]) -> dict[str, bytes]:
    """Return a source and its header, by file name.

    Args:
        lines: of the source, after its includes and before its link.
    """
    stem, facts = model.identifier, model.table.facts
    source = [*_first_lines(model), *lines, *link_lines(facts, stem), ""]
    return {f"{stem}.c": "\n".join(source).encode(), f"{stem}.h": _header(model).encode()}


def write_c_test(model: ExportModel, rows: Matrix, margins: Scores) -> dict[str, bytes]:
    """Return a test program: alone it compares these rows; with the argument ``-`` it scores rows of standard input.

    There, rows and scores are native doubles: per row the inputs; per row the margins, then the predictions if the
    header declares them.

    Args:
        rows: ``(n, n_features)`` float64.
        margins: the library's, ``(n,)`` or ``(n, n_outputs)`` float64.
    """
    stem, facts = model.identifier, model.table.facts
    expected = margins.reshape(len(rows), -1)
    values = {
        "NAME": stem,
        "UPPER": stem.upper(),
        "ROWS": str(len(rows)),
        "INPUTS": ",\n".join(_braced(row) for row in rows),
        "MARGINS": ",\n".join(_braced(row) for row in expected),
        "PREDICT": "1" if link_lines(facts, stem) else "0",
    }
    text = re.sub(r"@(\w+)@", lambda found: values[found[1]], _TEST)
    return {f"{stem}_test.c": text.encode()}


def c_number(value: float, number_type: str = "float64") -> str:
    """Return a number as a constant of C.

    >>> c_number(0.1), c_number(0.5, "float32"), c_number(-math.inf)
    ('0x1.999999999999ap-4', '0x1.0000000000000p-1f', '-INFINITY')
    """
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return value.hex() + ("f" if number_type == "float32" else "")


def comment_text(text: str) -> str:
    """Return a text that cannot end a comment of C.

    >>> comment_text('a */ b')
    '"a * / b"'
    """
    return json.dumps(text).replace("*/", "* /").replace("/*", "/ *")


def _braced(row: NDArray[np.float64]) -> str:
    return "    {" + ", ".join(map(c_number, row.tolist())) + "}"


def _first_lines(model: ExportModel) -> Iterator[str]:
    facts, stem = model.table.facts, model.identifier
    yield f"/* Model {comment_text(model.name)} {model.version}, package sha256:{model.package}. */"
    yield "/* Written from its tree table; do not edit it: its certificate has the digest of this file. */"
    yield from (f'#include "{stem}.h"', "#include <float.h>", "#include <math.h>", "")
    yield "#if !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0"
    yield from ("#error this compiler keeps numbers in wider registers, which changes scores", "#endif")
    yield from ("#ifdef __FAST_MATH__", "#error -ffast-math changes scores", "#endif", "")
    yield f"typedef {_c_type(facts.input_type)} input_t;"
    yield f"typedef {_c_type(facts.sum_type)} sum_t;"
    yield ""


def _source_lines(model: ExportModel) -> Iterator[str]:
    facts = model.table.facts
    writer = _TreeWriter(facts)
    bodies = [writer.function(at, tree) for at, tree in enumerate(model.table.trees())]
    outputs = [tree.output for tree in model.table.trees()]
    yield from writer.set_lines()
    for body in bodies:
        yield from body
    body = [
        f"    input_t x[{facts.n_features}];",
        f"    for (i = 0; i < {facts.n_features}; i++) {{",
        f"        x[i] = {prepared_text(facts, 'inputs[i]')};",
        "    }",
        *(f"    sums[{output}] += tree_{at}(x);" for at, output in enumerate(outputs)),
    ]
    yield from margin_lines(facts, model.identifier, body)


def _c_type(number_type: str) -> str:
    return "float" if number_type == "float32" else "double"


class _TreeWriter:
    """Writes trees as functions, and collects the sets of categories that they use."""

    def __init__(self, facts: TreeFacts) -> None:
        self._facts = facts
        self._sets: dict[tuple[int, ...], int] = {}

    def function(self, number: int, tree: Tree) -> list[str]:
        """Return the lines of one tree."""
        sizes = leaf_counts(tree.nodes)
        lines = [f"static sum_t tree_{number}(const input_t *x) {{"]
        if tree.nodes[0].is_leaf:
            lines.append("    (void)x;")
        self._write(tree.nodes, sizes, 0, 1, lines)
        return [*lines, "}", ""]

    def set_lines(self) -> Iterator[str]:
        """Yield the sets as words of bits, and the function that looks into them."""
        if not self._sets:
            return
        for codes, number in self._sets.items():
            words = [0] * (max(codes, default=0) // _WORD_BITS + 1)
            for code in codes:
                words[code // _WORD_BITS] |= 1 << code % _WORD_BITS
            yield f"static const unsigned long set_{number}[] = {{"
            for start in range(0, len(words), _PER_LINE):
                yield "    " + " ".join(f"0x{word:08x}UL," for word in words[start : start + _PER_LINE])
            yield "};"
        low, high = (c_number(float(end)) for end in self._facts.category_range)
        yield ""
        yield "static int has(const unsigned long *set, unsigned long words, double x) {"
        yield "    unsigned long code;"
        yield f"    if (!(x > {low} && x < {high})) {{"
        yield "        return 0;"
        yield "    }"
        yield "    code = (unsigned long)x;"
        if self._facts.whole_categories:
            yield "    if ((double)code != x) {"
            yield "        return 0;"
            yield "    }"
        yield f"    return code / {_WORD_BITS} < words && (set[code / {_WORD_BITS}] >> (code % {_WORD_BITS}) & 1UL);"
        yield "}"
        yield ""

    def _write(self, nodes: Sequence[TreeNode], sizes: Sequence[int], at: int, depth: int, lines: list[str]) -> None:
        indent = "    " * depth
        while not nodes[at].is_leaf:
            node = nodes[at]
            condition = self._condition(node)
            # The smaller side is the nested one, so nesting stays below the logarithm of the leaves, whatever the depth
            # of the tree: C99 promises 127 levels only.
            is_left_nested = sizes[node.left] <= sizes[node.right]
            nested, at = (node.left, node.right) if is_left_nested else (node.right, node.left)
            lines.append(f"{indent}if ({condition if is_left_nested else f'!({condition})'}) {{")
            self._write(nodes, sizes, nested, depth + 1, lines)
            lines.append(f"{indent}}}")
        lines.append(f"{indent}return {c_number(nodes[at].value, self._facts.sum_type)};")

    def _condition(self, node: TreeNode) -> str:
        """Return when a row goes left, without a test for NaN where a comparison already says it."""
        x = f"x[{node.feature}]"
        if node.test == "in":
            number = self._sets.setdefault(node.categories, len(self._sets))
            condition = f"has(set_{number}, sizeof set_{number} / sizeof *set_{number}, (double){x})"
            if node.nan_left:
                condition = f"({x} != {x} || {condition})"
        else:
            threshold = c_number(node.threshold, self._facts.input_type)
            opposite = ">" if node.test == "<=" else ">="
            # A comparison with NaN is false.
            condition = f"!({x} {opposite} {threshold})" if node.nan_left else f"{x} {node.test} {threshold}"
        if node.zero_left == node.passes(0.0):
            return condition
        return f"({x} == 0 || {condition})" if node.zero_left else f"({x} != 0 && {condition})"


def leaf_counts(nodes: Sequence[TreeNode]) -> list[int]:
    """Return the number of leaves below each node."""
    order, sizes = [0], [1] * len(nodes)
    for at in order:  # it grows on the way
        if not nodes[at].is_leaf:
            order += [nodes[at].left, nodes[at].right]
    for at in reversed(order):
        if not nodes[at].is_leaf:
            sizes[at] = sizes[nodes[at].left] + sizes[nodes[at].right]
    return sizes


def prepared_text(facts: TreeFacts, number: str) -> str:
    """Return the expression of an input as the library compares it."""
    if facts.zero is None:
        return f"(input_t){number}"
    zero = c_number(facts.zero)
    return f"{number} <= {zero} && {number} >= -{zero} ? 0 : (input_t){number}"


def margin_lines(facts: TreeFacts, stem: str, body: Iterable[str]) -> Iterator[str]:
    """Yield the function of raw scores, whose body adds leaves to ``sums`` and can use ``int i``."""
    upper = stem.upper()
    yield f"void {stem}_margin(const double *inputs, double *margins) {{"
    yield f"    sum_t sums[{upper}_OUTPUTS] = {{{', '.join(c_number(each, facts.sum_type) for each in facts.base)}}};"
    yield "    int i;"
    yield from body
    yield f"    for (i = 0; i < {upper}_OUTPUTS; i++) {{"
    if facts.scale != 1.0:
        yield f"        sums[i] *= {c_number(facts.scale, facts.sum_type)};"
    yield "        margins[i] = (double)sums[i];"
    yield "    }"
    for output, bias in enumerate(facts.bias):
        yield f"    margins[{output}] += {c_number(bias)};"
    yield "}"
    yield ""


def _header(model: ExportModel) -> str:
    stem, facts = model.identifier, model.table.facts
    has_link = bool(list(link_lines(facts, stem)))
    inputs = [f" *   {at:>3}  {_input_text(each)}" for at, each in enumerate(model.inputs)]
    values: Mapping[str, Any] = {
        "NAME": stem,
        "UPPER": stem.upper(),
        "MODEL": f"{comment_text(model.name)} {model.version}",
        "PACKAGE": model.package,
        "N": facts.n_features,
        "K": facts.n_outputs,
        "OBJECTIVE": comment_text(facts.objective),
        "LIST": "\n".join(inputs),
        "NOTE": comment_text(model.note)[1:-1],
        "PREDICT": _PREDICT.replace("@NAME@", stem) if has_link else _NO_PREDICT,
    }
    return re.sub(r"@(\w+)@", lambda found: str(values[found[1]]), _HEADER)


def _input_text(given: ModelInput) -> str:
    text = f"{comment_text(given.name)}  {given.dtype}"
    if not given.categories:
        return text
    codes = ", ".join(f"{code} = {comment_text(word)}" for code, word in enumerate(given.categories))
    return f"{text}, as the number of its category: {codes}; NaN for another"


_PREDICT = """/* Writes predictions: what the library returns without raw_score. Another C library may give
 * exponentials that differ in the last place; margins do not. */
void @NAME@_predict(const double *inputs, double *predictions);
"""
_NO_PREDICT = "/* Predictions are not available: no C is known for the link of this objective. */\n"
_HEADER = """/* Model @MODEL@, package sha256:@PACKAGE@.
 * @NOTE@
 *
 * The inputs are @N@ doubles in this order; NaN is missing, and times are microseconds since 1970 in UTC.
@LIST@
 *
 * The outputs are @K@ doubles. Objective: @OBJECTIVE@.
 * The functions have no state, allocate nothing, and can be called from several threads. */
#ifndef SKEWLESS_@UPPER@_H
#define SKEWLESS_@UPPER@_H

#define @UPPER@_INPUTS @N@
#define @UPPER@_OUTPUTS @K@

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the raw scores, with the bits of the library that trained the model. */
void @NAME@_margin(const double *inputs, double *margins);
@PREDICT@
#ifdef __cplusplus
}
#endif

#endif
"""
_TEST = """/* Compares some rows with the library's raw scores; with the argument "-", scores rows of standard input. */
#include "@NAME@.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double rows[@ROWS@][@UPPER@_INPUTS] = {
@INPUTS@
};
static const double expected[@ROWS@][@UPPER@_OUTPUTS] = {
@MARGINS@
};

static int score_input(void) {
    double row[@UPPER@_INPUTS], scores[2 * @UPPER@_OUTPUTS];
    size_t count = @UPPER@_OUTPUTS;
    while (fread(row, sizeof row, 1, stdin) == 1) {
        @NAME@_margin(row, scores);
#if @PREDICT@
        @NAME@_predict(row, scores + @UPPER@_OUTPUTS);
        count = 2 * @UPPER@_OUTPUTS;
#endif
        if (fwrite(scores, sizeof *scores, count, stdout) != count) {
            return 2;
        }
    }
    return fflush(stdout) == 0 && feof(stdin) ? 0 : 2;
}

int main(int argc, char **argv) {
    double margins[@UPPER@_OUTPUTS];
    int at, wrong = 0;
    if (argc == 2 && strcmp(argv[1], "-") == 0) {
        return score_input();
    }
    for (at = 0; at < @ROWS@; at++) {
        @NAME@_margin(rows[at], margins);
        if (memcmp(margins, expected[at], sizeof margins) != 0) {
            printf("row %d differs: %a, not %a\\n", at, margins[0], expected[at][0]);
            wrong++;
        }
    }
    printf("%d of %d rows differ\\n", wrong, @ROWS@);
    return wrong != 0;
}
"""
