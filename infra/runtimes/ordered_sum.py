"""Adds leaves in the order of the trees, so that two runtimes give equal bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# One thread per row and output; the compiler must not reorder the additions of a thread.
_KERNEL = """
extern "C" __global__ void ordered_sum(
    const {real}* leaves, const int* trees, const int* starts, const {real}* base, {real}* sums,
    const long long rows, const int n_trees, const int n_outputs)
{{
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= rows * n_outputs) return;
    const long long row = at / n_outputs;
    const int output = (int)(at % n_outputs);
    {real} sum = base[output];
    for (int i = starts[output]; i < starts[output + 1]; ++i) sum += leaves[row * n_trees + trees[i]];
    sums[at] = sum;
}}
"""
_REAL = {np.dtype(np.float64): "double", np.dtype(np.float32): "float"}
_THREADS = 128


class OrderedSum:
    """Adds each row's leaves to a base, from the first tree to the last, output by output.

    Args:
        output_of: per tree, the output to which it adds.
        base: start value of each output, shape ``(n_outputs,)``, in the precision of the sums.
    """

    def __init__(self, output_of: Sequence[int], base: Floats) -> None:
        self._base = base
        outputs = np.asarray(output_of)
        self._trees = [np.flatnonzero(outputs == output) for output in range(len(base))]
        self._kernel: Any = None

    def on_host(self, leaves: Floats) -> Floats:
        """Return the sums, shape ``(n, n_outputs)``, of numpy leaves of shape ``(n, n_trees)``."""
        n = len(leaves)
        sums = np.empty((n, len(self._base)), dtype=self._base.dtype)
        for output, trees in enumerate(self._trees):
            terms = np.empty((n, 1 + len(trees)), dtype=self._base.dtype)
            terms[:, 0] = self._base[output]
            terms[:, 1:] = leaves[:, trees]
            # accumulate always adds from left to right; sum adds pairwise.
            sums[:, output] = np.add.accumulate(terms, axis=1)[:, -1]
        return sums

    def on_device(self, leaves: Any) -> Floats:  # noqa: ANN401 - cupy has no types
        """Return the sums as ``on_host`` does, of cupy leaves; only the sums leave the device."""
        import cupy  # noqa: PLC0415 - part of the extra `gpu`

        if self._kernel is None:
            source = _KERNEL.format(real=_REAL[self._base.dtype])
            starts = np.cumsum([0, *map(len, self._trees)], dtype=np.int32)
            self._kernel = cupy.RawKernel(source, "ordered_sum", options=("--fmad=false",))
            self._device_arguments = tuple(
                map(cupy.asarray, (np.concatenate(self._trees).astype(np.int32), starts, self._base))
            )
        leaves = cupy.ascontiguousarray(leaves, dtype=self._base.dtype)
        n, n_outputs = len(leaves), len(self._base)
        sums = cupy.empty((n, n_outputs), dtype=self._base.dtype)
        blocks = max(1, -(-n * n_outputs // _THREADS))
        sizes = (np.int64(n), np.int32(leaves.shape[1]), np.int32(n_outputs))
        self._kernel((blocks,), (_THREADS,), (leaves, *self._device_arguments, sums, *sizes))
        host: Floats = cupy.asnumpy(sums)
        return host
